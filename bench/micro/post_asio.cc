// post.h over Boost.Asio: boost::asio::post to an io_context that one thread runs.
#include "post.h"

#include <boost/asio.hpp>

const bool party_can_spin = false;

struct party {
    boost::asio::io_context context{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{context.get_executor()};
};

struct party *party_new(uint64_t) {
    return new party;
}

void party_free(struct party *party) {
    delete party;
}

void party_run(struct party *party) {
    party->context.run();
}

void party_stop(struct party *party) {
    party->context.stop();
}

void party_post(struct party *party, post_function function, void *arg) {
    boost::asio::post(party->context, [function, arg] { function(nullptr, arg); });
}

void party_soon(struct party *party, post_function function, void *arg) {
    boost::asio::post(party->context, [function, arg] { function(nullptr, arg); });
}
