#include "support/tls/overlay.h"

#include "support/tls/ends.h"
#include "transports/base/secured.h"

static void (*before)(struct channel *channel);

int tls_push(tram_transport *transport, bool server) {
    static char name[] = "localhost";
    struct tls_use use = {
        .config = server ? servers : clients, .server = server, .server_hostname = server ? NULL : name};
    struct tls_problem problem;
    return tram__tls_use_push(&use, transport, NULL, NULL, 0, &problem);
}

static void push_both(struct channel *channel) {
    assert_int_equal(tls_push(channel->first, false), 0);
    assert_int_equal(tls_push(channel->second, true), 0);
}

/* With half close, which asks for more: without it the end of one direction is the end of both. */
int tls_overlay_setup(void **state) {
    tls_setup(state);
    tram_tls_certificate identity = identity_of(authority.server);
    const tram_tls_options server = {.certificates = &identity, .certificate_count = 1, .half_close = true};
    const tram_tls_options client = {.ca = source_of(authority.ca->chain_pem), .half_close = true};
    assert_int_equal(tram_tls_config_reload(servers, &server, NULL), 0);
    assert_int_equal(tram_tls_config_reload(clients, &client, NULL), 0);
    before = channel_overlay;
    channel_overlay = push_both;
    return 0;
}

int tls_overlay_teardown(void **state) {
    channel_overlay = before;
    return tls_teardown(state);
}
