/* Boost.Asio on the sockets; asio_echo.h has what it does. */
#include "asio_echo.h"

int main() {
    try {
        serve([](tcp::socket socket) { std::make_shared<Session<tcp::socket>>(std::move(socket))->read(); });
    } catch (const std::exception &error) {
        std::fprintf(stderr, "asio: %s\n", error.what());
        return 1;
    }
    return 0;
}
