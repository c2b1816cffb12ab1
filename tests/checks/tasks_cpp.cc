// Exceptions of C++ within tasks: thrown, caught and thrown again across waits, in two tasks at a time.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include <tram/tram.h>

namespace {

int destroyed;

struct Guard {
    ~Guard() { destroyed++; }
};

void fail(const char *name, int depth) {
    Guard guard;
    if (depth > 0)
        return fail(name, depth - 1);
    tram_yield();
    throw std::runtime_error(name);
}

// While one task is in its handler the other throws, catches and throws again: each must find its own.
int catch_and_throw_again(void *arg) {
    const char *name = static_cast<const char *>(arg);
    for (int i = 0; i < 10; i++) {
        try {
            try {
                fail(name, 3);
            } catch (const std::exception &) {
                tram_yield();
                try {
                    fail("inner", 1);
                } catch (const std::exception &inner) {
                    tram_yield();
                    if (std::strcmp(inner.what(), "inner"))
                        return -1;
                }
                tram_yield();
                throw;
            }
        } catch (const std::runtime_error &error) {
            if (error.what() != std::string(name))
                return -1;
        }
        if (std::uncaught_exceptions() != 0)
            return -1;
    }
    return 0;
}

int run(void *) {
    tram_task *a, *b;
    tram_task_spawn(nullptr, catch_and_throw_again, const_cast<char *>("a"), nullptr, &a);
    tram_task_spawn(nullptr, catch_and_throw_again, const_cast<char *>("b"), nullptr, &b);
    int first = tram_task_join(a), second = tram_task_join(b);
    return first ? first : second;
}

} // namespace

int main() {
    int status = tram_run(run, nullptr, nullptr);
    std::printf("%s, %d destroyed\n", status ? "wrong" : "right", destroyed);
    return status || destroyed != 2 * 10 * (4 + 2) ? 1 : 0;
}
