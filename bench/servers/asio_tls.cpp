/*
 * Boost.Asio's ssl::stream, behind which is the echo of asio.cpp.
 *
 *     asio_tls CHAIN KEY
 */
#include <boost/asio/ssl.hpp>

#include "asio_echo.h"

namespace ssl = boost::asio::ssl;

int main(int argc, char **argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: asio_tls CHAIN KEY\n");
        return 2;
    }
    try {
        ssl::context tls(ssl::context::tls_server);
        tls.use_certificate_chain_file(argv[1]);
        tls.use_private_key_file(argv[2], ssl::context::pem);
        serve([&tls](tcp::socket socket) {
            auto session = std::make_shared<Session<ssl::stream<tcp::socket>>>(std::move(socket), tls);
            session->stream().async_handshake(ssl::stream_base::server, [session](error_code error) {
                if (!error) {
                    session->read();
                }
            });
        });
    } catch (const std::exception &error) {
        std::fprintf(stderr, "asio: %s\n", error.what());
        return 1;
    }
    return 0;
}
