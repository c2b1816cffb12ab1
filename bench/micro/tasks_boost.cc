// The figures of bench/tasks over Boost.Context: jump_fcontext, and beginning and ending a context on a stack that is
// there.
#include <boost/context/detail/fcontext.hpp>

#include "micro.h"

using namespace boost::context::detail;

static constexpr int SWITCHES = 20000000;
alignas(64) static char stack[65536];

static void ping(transfer_t from) {
    for (;;)
        from = jump_fcontext(from.fctx, nullptr);
}

static void nothing(transfer_t from) {
    jump_fcontext(from.fctx, nullptr);
}

int main() {
    micro_pin(0);
    transfer_t inside = {make_fcontext(stack + sizeof stack, sizeof stack, ping), nullptr};
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < SWITCHES / 2; i++)
        inside = jump_fcontext(inside.fctx, nullptr);
    printf("switch %.3f\n", static_cast<double>(micro_cpu_now() - start) / SWITCHES);
    start = micro_cpu_now();
    for (int i = 0; i < SWITCHES / 2; i++)
        jump_fcontext(make_fcontext(stack + sizeof stack, sizeof stack, nothing), nullptr);
    printf("spawn %.3f\n", static_cast<double>(micro_cpu_now() - start) / (SWITCHES / 2));
}
