// Two tram loops inside a host's own epoll loop, on one thread, in C++17: an echo server on one, its client on the
// other.
//
//     embed-epoll-cpp MESSAGE        prints what comes back, and ends
//
// All loops are prepared after the last call into any of them, then the host waits once, then all are dispatched.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <sys/epoll.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include <tram/tram.h>

namespace {

int check(int status, const char *what) {
    if (status < 0)
        throw std::runtime_error(std::string(what) + ": " + tram_error_text(status));
    return status;
}

// ---- Owners of what tram hands out ----

struct FreeLoop {
    void operator()(tram_loop *loop) const {
        tram_loop_free(loop);
    }
};
struct ReleaseFuture {
    void operator()(tram_future *future) const {
        tram_future_release(future);
    }
};
struct ReleaseServer {
    void operator()(tram_server *server) const {
        tram_server_release(server);
    }
};
using Loop = std::unique_ptr<tram_loop, FreeLoop>;
using Future = std::unique_ptr<tram_future, ReleaseFuture>;
using Server = std::unique_ptr<tram_server, ReleaseServer>;

// ---- The host ----

class Host {
  public:
    Host() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
        check(epoll_ < 0 ? -errno : 0, "epoll_create1");
    }
    ~Host() {
        close(epoll_);
    }
    Host(const Host &) = delete;
    Host &operator=(const Host &) = delete;

    void add(tram_loop *loop) {
        epoll_event event{};
        event.events = EPOLLIN;
        int fd = tram_loop_backend_fd(loop);
        check(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) ? -errno : 0, "epoll_ctl");
        loops_.push_back(loop);
    }

    void run() {
        while (!stop_) {
            uint64_t nearest = TRAM_FOREVER;
            for (tram_loop *loop : loops_) {
                uint64_t timeout_ns;
                check(tram_loop_prepare(loop, &timeout_ns), "prepare");
                nearest = std::min(nearest, timeout_ns);
            }
            epoll_event events[8];
            epoll_wait(epoll_, events, 8, milliseconds(nearest));
            for (tram_loop *loop : loops_)
                check(tram_loop_dispatch(loop), "dispatch");
        }
    }

    void stop() {
        stop_ = true;
    }

  private:
    // Rounded up, since a timer of tram never fires early; a very long wait is made in portions.
    static int milliseconds(uint64_t timeout_ns) {
        if (timeout_ns == TRAM_FOREVER)
            return -1;
        return static_cast<int>(std::min<uint64_t>(timeout_ns / 1000000 + (timeout_ns % 1000000 != 0), 1000000));
    }

    int epoll_;
    bool stop_ = false;
    std::vector<tram_loop *> loops_;
};

// ---- Protocols: objects that begin with a tram_protocol ----

// No exception may leave a callback, so none of these throws.
template <class Protocol> tram_protocol_ops table_of() {
    tram_protocol_ops ops{};
    ops.data_received = [](tram_protocol *self, const void *data, size_t size) noexcept {
        return reinterpret_cast<Protocol *>(self)->data_received(data, size);
    };
    ops.connection_made = [](tram_protocol *self, tram_transport *) noexcept {
        return reinterpret_cast<Protocol *>(self)->connection_made();
    };
    ops.connection_lost = [](tram_protocol *self, const tram_error *error) noexcept {
        return reinterpret_cast<Protocol *>(self)->connection_lost(error);
    };
    ops.released = [](tram_protocol *self) noexcept { delete reinterpret_cast<Protocol *>(self); };
    return ops;
}

// The argument of the factory is the one of the constructor.
template <class Protocol, class Argument> int make(tram_loop *, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = table_of<Protocol>();
    auto *protocol = new (std::nothrow) Protocol(static_cast<Argument *>(arg));
    if (!protocol)
        return -ENOMEM;
    protocol->base.ops = &ops;
    *ret_protocol = &protocol->base;
    return 0;
}

struct Echo {
    tram_protocol base{}; // first
    explicit Echo(void *) {}
    int connection_made() {
        return 0;
    }
    int data_received(const void *data, size_t size) {
        return tram_transport_write(base.transport, data, size);
    }
    int connection_lost(const tram_error *) {
        return 0;
    }
};

struct Conversation {
    Host *host;
    std::string message;
    size_t received = 0;
};

struct Client {
    tram_protocol base{}; // first
    Conversation *talk;
    explicit Client(Conversation *conversation) : talk(conversation) {}

    int connection_made() {
        return tram_transport_write(base.transport, talk->message.data(), talk->message.size());
    }

    int data_received(const void *data, size_t size) {
        fwrite(data, 1, size, stdout);
        talk->received += size;
        return talk->received == talk->message.size() ? tram_transport_close(base.transport) : 0;
    }

    int connection_lost(const tram_error *error) {
        if (error)
            fprintf(stderr, "lost: %s\n", tram_error_describe(error, error->code));
        talk->host->stop();
        return 0;
    }
};

Loop new_loop() {
    tram_loop *loop;
    check(tram_loop_new(nullptr, &loop), "new loop");
    return Loop(loop);
}

void run(const std::string &message) {
    Host host;
    Conversation talk{&host, message + "\n"};
    Loop serving = new_loop(), asking = new_loop();
    tram_future *future;
    check(tram_loop_create_server(serving.get(), make<Echo, void>, nullptr, "127.0.0.1", "0", nullptr, &future),
          "server");
    Future listening(future);
    check(tram_loop_run_until_complete(serving.get(), future), "listen"); // before the host's loop begins
    Server server(tram_future_server(future));

    tram_socket_address address;
    check(tram_server_sockname(server.get(), 0, &address), "sockname");
    std::string port = std::to_string(tram_socket_address_port(&address));
    check(tram_loop_create_connection(asking.get(), make<Client, Conversation>, &talk, "127.0.0.1", port.c_str(),
                                      nullptr, nullptr),
          "connect");

    host.add(serving.get());
    host.add(asking.get());
    host.run();
}

} // namespace

int main(int argc, char **argv) try {
    if (argc > 1 && std::strcmp(argv[1], "--help") == 0) {
        puts("usage: embed-epoll-cpp MESSAGE\n"
             "Sends MESSAGE from one loop to another inside the epoll loop of a host, and prints what comes back.");
        return 0;
    }
    run(argc > 1 ? argv[1] : "hello");
    return 0;
} catch (const std::exception &error) {
    fprintf(stderr, "embed-epoll-cpp: %s\n", error.what());
    return 1;
}
