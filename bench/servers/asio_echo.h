/*
 * What the servers over Boost.Asio have in common: one io_context told that one thread runs it, a session per
 * connection held by its own handlers, async_read_some into the session's buffer and async_write from it, in turn.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; Asio by itself
 * leaves it off.
 */
#ifndef BENCH_ASIO_ECHO_H
#define BENCH_ASIO_ECHO_H

#include <array>
#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

#include <boost/asio.hpp>

using boost::asio::ip::tcp;
using boost::system::error_code;

template <typename Stream> class Session : public std::enable_shared_from_this<Session<Stream>> {
  public:
    template <typename... Arguments>
    explicit Session(Arguments &&...arguments) : stream_(std::forward<Arguments>(arguments)...) {}

    Stream &stream() {
        return stream_;
    }

    void read() {
        stream_.async_read_some(boost::asio::buffer(bytes_),
                                [self = this->shared_from_this()](error_code error, size_t size) {
                                    if (!error) {
                                        self->write(size);
                                    }
                                });
    }

  private:
    void write(size_t size) {
        boost::asio::async_write(stream_, boost::asio::buffer(bytes_, size),
                                 [self = this->shared_from_this()](error_code error, size_t) {
                                     if (!error) {
                                         self->read();
                                     }
                                 });
    }

    Stream stream_;
    std::array<char, 16384> bytes_; /* as large as the largest message of the bench */
};

template <typename Begin> void accept(tcp::acceptor &acceptor, Begin begin) {
    acceptor.async_accept([&acceptor, begin](error_code error, tcp::socket socket) {
        if (!error) {
            begin(std::move(socket));
        }
        accept(acceptor, begin);
    });
}

/* `begin` makes a session of each accepted socket. */
template <typename Begin> void serve(Begin begin) {
    boost::asio::io_context context(1);
    boost::asio::signal_set signals(context, SIGTERM);
    signals.async_wait([&context](error_code, int) { context.stop(); });
    tcp::acceptor acceptor(context, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0));
    acceptor.set_option(tcp::no_delay(true));
    accept(acceptor, begin);
    std::printf("listening on 127.0.0.1:%d\n", int(acceptor.local_endpoint().port()));
    std::fflush(stdout);
    context.run();
}

#endif
