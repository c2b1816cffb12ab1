/*
 * Boost.Asio with coroutines of C++20: one per connection, which reads some and writes all of it, in turn. Errors come
 * as values (redirect_error), since an exception at the end of each connection would be dearer.
 */
#include <utility> // before Asio: its awaitable.hpp of 1.74 uses std::exchange

#include "asio_echo.h"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

using boost::asio::redirect_error;
using boost::asio::use_awaitable;

static boost::asio::awaitable<void> echo(tcp::socket socket) {
    std::array<char, 16384> bytes; /* as large as the largest message of the bench */
    error_code error;
    for (;;) {
        size_t size = co_await socket.async_read_some(boost::asio::buffer(bytes), redirect_error(use_awaitable, error));
        if (error) {
            co_return;
        }
        co_await boost::asio::async_write(socket, boost::asio::buffer(bytes, size),
                                          redirect_error(use_awaitable, error));
        if (error) {
            co_return;
        }
    }
}

int main() {
    try {
        serve([](tcp::socket socket) {
            auto executor = socket.get_executor();
            boost::asio::co_spawn(executor, echo(std::move(socket)), boost::asio::detached);
        });
    } catch (const std::exception &error) {
        std::fprintf(stderr, "asio_coroutine: %s\n", error.what());
        return 1;
    }
    return 0;
}
