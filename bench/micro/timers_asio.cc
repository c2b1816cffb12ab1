// timers.h over Boost.Asio: steady_timer. Whoever waits for a cancelled timer is told so, hence timers_settle().
#include "timers.h"

#include <boost/asio.hpp>
#include <chrono>
#include <deque>

namespace {
boost::asio::io_context context{1};
std::deque<boost::asio::steady_timer> timers;

boost::asio::steady_timer::time_point at(uint64_t when_ns) {
    return boost::asio::steady_timer::time_point(std::chrono::nanoseconds(when_ns));
}

void wait_for(uint32_t timer) {
    timers[timer].async_wait([](const boost::system::error_code &error) {
        if (!error)
            timers_fired();
    });
}
} // namespace

void timers_open(uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        timers.emplace_back(context);
}

void timers_close() {
    timers.clear();
}

void timers_run(void (*function)()) {
    context.restart();
    boost::asio::post(context, function);
    context.run();
}

void timers_stop() {
    context.stop();
}

void timer_start(uint32_t timer, uint64_t when_ns) {
    timers[timer].expires_at(at(when_ns));
    wait_for(timer);
}

void timer_rearm(uint32_t timer, uint64_t when_ns) {
    timer_start(timer, when_ns);
}

void timer_stop(uint32_t timer) {
    timers[timer].cancel();
}

void timers_settle() {
    context.poll();
}
