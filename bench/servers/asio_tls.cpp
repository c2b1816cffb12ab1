/*
 * Boost.Asio's ssl::stream, behind which is the echo of asio.cpp: one io_context told that one thread runs it, a
 * session per connection held by its own handlers, async_read_some into the session's buffer and async_write from it,
 * in turn.
 *
 *     asio_tls CHAIN KEY
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; Asio by itself
 * leaves it off.
 */
#include <array>
#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>

namespace ssl = boost::asio::ssl;
using boost::asio::ip::tcp;
using boost::system::error_code;

namespace {

class Session : public std::enable_shared_from_this<Session> {
  public:
    Session(tcp::socket socket, ssl::context &context) : socket_(std::move(socket), context) {}

    void start() {
        socket_.async_handshake(ssl::stream_base::server, [self = shared_from_this()](error_code error) {
            if (!error) {
                self->read();
            }
        });
    }

  private:
    void read() {
        socket_.async_read_some(boost::asio::buffer(bytes_),
                                [self = shared_from_this()](error_code error, size_t size) {
                                    if (!error) {
                                        self->write(size);
                                    }
                                });
    }

    void write(size_t size) {
        boost::asio::async_write(socket_, boost::asio::buffer(bytes_, size),
                                 [self = shared_from_this()](error_code error, size_t) {
                                     if (!error) {
                                         self->read();
                                     }
                                 });
    }

    ssl::stream<tcp::socket> socket_;
    std::array<char, 16384> bytes_; /* as large as the largest message of the bench */
};

void accept(tcp::acceptor &acceptor, ssl::context &context) {
    acceptor.async_accept([&acceptor, &context](error_code error, tcp::socket socket) {
        if (!error) {
            std::make_shared<Session>(std::move(socket), context)->start();
        }
        accept(acceptor, context);
    });
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: asio_tls CHAIN KEY\n");
        return 2;
    }
    try {
        ssl::context tls(ssl::context::tls_server);
        tls.use_certificate_chain_file(argv[1]);
        tls.use_private_key_file(argv[2], ssl::context::pem);
        boost::asio::io_context context(1);
        boost::asio::signal_set signals(context, SIGTERM);
        signals.async_wait([&context](error_code, int) { context.stop(); });
        tcp::acceptor acceptor(context, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
        acceptor.set_option(tcp::no_delay(true));
        accept(acceptor, tls);
        std::printf("listening on 127.0.0.1:%d\n", int(acceptor.local_endpoint().port()));
        std::fflush(stdout);
        context.run();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "asio: %s\n", error.what());
        return 1;
    }
    return 0;
}
