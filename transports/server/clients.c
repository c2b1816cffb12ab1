/* Who is connected to a server: for whoever wants to know what still keeps it from ending. */
#include <stdio.h>
#include <string.h>

#include "transports/base/stack.h"
#include "transports/server/server.h"

struct walk {
    tram_client_function visit;
    void *arg;
};

static void visit_transport(tram_transport *transport, void *arg) {
    const struct walk *walk = arg;
    tram_client client = {
        .transport = transport,
        .unsent = transport_write_size(transport),
        .half_closed = (transport->flags & (T_EOF | T_CLOSING)) == T_EOF,
        .closing = transport->flags & T_CLOSING,
    };
    const tram_socket_address *peername = tram_transport_get_extra_info(transport, "peername", NULL);
    if (peername)
        client.peername = *peername;
    walk->visit(&client, walk->arg);
}

int tram_server_each_client(tram_server *server, tram_client_function visit, void *arg) {
    int status = server->loop ? loop_enter(server->loop, __func__) : TRAM_ESTATE;
    if (status)
        return status;
    struct walk walk = {.visit = visit, .arg = arg};
    tram__transport_each(server->loop, &server->owner, visit_transport, &walk);
    return 0;
}

const char *tram_client_text(const tram_client *client, char *text, size_t size) {
    char peer[TRAM_ADDRESS_TEXT_SIZE] = "unknown";
    if (client->peername.size)
        tram_socket_address_text(&client->peername, peer, sizeof peer);
    snprintf(text, size, "%s (%s, %zu bytes unsent)", peer,
             client->closing       ? "closing"
             : client->half_closed ? "half closed"
                                   : "open",
             client->unsent);
    return text;
}

/* ---- Those that are left ---- */

/* The first few clients of a server. */
struct description {
    char *text;
    size_t size;
    size_t used;
    size_t named;
    size_t all;
};

#define CLIENTS_NAMED 4
#define MORE          " and %zu more"
#define MORE_SIZE     sizeof " and 18446744073709551615 more"

static void describe_client(const tram_client *client, void *arg) {
    struct description *description = arg;
    char text[TRAM_ADDRESS_TEXT_SIZE + 64];
    if (client->transport->flags & T_LOST_PENDING)
        return; /* it ends anyway */
    tram_client_text(client, text, sizeof text);
    const char *gap = description->named ? ", " : "";
    size_t room = description->size - description->used;
    description->all++;
    if (description->named == CLIENTS_NAMED || strlen(gap) + strlen(text) + MORE_SIZE > room)
        return;
    description->named++;
    description->used += (size_t)snprintf(description->text + description->used, room, "%s%s", gap, text);
}

void tram__server_describe(tram_server *server, char *text, size_t size) {
    struct description description = {.text = text, .size = size};
    text[0] = '\0';
    tram_server_each_client(server, describe_client, &description);
    if (description.named && description.named < description.all)
        snprintf(text + description.used, size - description.used, MORE, description.all - description.named);
}
