/*
 * A DNS responder over all cores: answers queries for IPv4 addresses of the names that it is given.
 *
 *     dns-responder PORT NAME=ADDRESS…        ends on SIGINT or SIGTERM
 *
 * Every worker has a socket of its own on the same port, and answers from the table that all of them read: nothing is
 * shared that changes. What is sent within datagram_received goes out in batches. Other names do not exist; other types
 * of a name have no data.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <tram/tram.h>

struct entry {
    const char *name; /* up to the '=' */
    size_t size;
    struct in_addr address;
};

static struct entry *table;
static size_t entries;

static const struct entry *look_up(const char *text, size_t size) {
    for (size_t i = 0; i < entries; i++) {
        if (table[i].size == size && strncasecmp(table[i].name, text, size) == 0)
            return &table[i];
    }
    return NULL;
}

/* ---- The wire (RFC 1035) ---- */

enum { HEADER = 12, MOST = 512, TYPE_A = 1, CLASS_IN = 1, NO_ERROR = 0, FORMAT_ERROR = 1, NO_NAME = 3 };

static unsigned number_at(const unsigned char *bytes) {
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Reads the name of the question as text; returns where it ends in the query, 0: it is malformed. */
static size_t read_name(const unsigned char *query, size_t size, char *text, size_t *ret_length) {
    size_t at = HEADER, length = 0;
    while (at < size && query[at] != 0) {
        size_t label = query[at];
        if (label > 63 || at + 1 + label >= size || length + label > 254)
            return 0;
        if (length)
            text[length++] = '.';
        memcpy(text + length, query + at + 1, label);
        length += label;
        at += 1 + label;
    }
    *ret_length = length;
    return at + 5 <= size ? at + 1 : 0; /* the type and the class follow */
}

/* Makes the answer in `reply`, which begins with the query; returns its size. 0: none, it was no query. */
static size_t make_reply(unsigned char *reply, const unsigned char *query, size_t size) {
    char text[256];
    size_t length;
    if (size < HEADER || size > MOST || query[2] & 0xf8) /* an answer, or no standard query */
        return 0;
    size_t at = number_at(query + 4) == 1 ? read_name(query, size, text, &length) : 0;
    size_t end = at ? at + 4 : (size_t)HEADER;
    const struct entry *entry = at ? look_up(text, length) : NULL;
    bool answers = entry && number_at(query + at) == TYPE_A && number_at(query + at + 2) == CLASS_IN;
    memcpy(reply, query, end);
    memset(reply + 4, 0, HEADER - 4);
    reply[2] = (unsigned char)(0x84 | (query[2] & 1)); /* an answer, with authority; recursion desired as it was */
    reply[3] = !at ? FORMAT_ERROR : entry ? NO_ERROR : NO_NAME;
    reply[5] = at != 0;
    reply[7] = answers;
    if (answers) {
        static const unsigned char record[] = {0xc0, HEADER, 0, TYPE_A, 0, CLASS_IN, 0, 0, 0, 60, 0, 4};
        memcpy(reply + end, record, sizeof record);
        memcpy(reply + end + sizeof record, &entry->address, 4);
        end += sizeof record + 4;
    }
    return end;
}

/* ---- The protocol: one for each worker ---- */

static int datagram_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *address) {
    unsigned char reply[MOST + 16];
    size_t length = make_reply(reply, (const unsigned char *)data, size);
    return length && address ? tram_transport_sendto(self->transport, reply, length, address) : 0;
}

static void released(tram_protocol *self) {
    free(self);
}

static int make_responder(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.released = released, .datagram_received = datagram_received};
    (void)loop, (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &ops;
    return 0;
}

static int serve(tram_runtime *runtime, const char *port) {
    const tram_datagram_options options = {.local_host = "127.0.0.1", .local_port = port};
    tram_runtime_datagram_endpoint *endpoint;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_error error = {.code = 0};
    int status = tram_runtime_create_datagram_endpoint(runtime, make_responder, NULL, &options, &endpoint, &error);
    if (!status)
        status = tram_runtime_datagram_endpoint_sockname(endpoint, &address);
    if (status) {
        fprintf(stderr, "dns-responder: %s\n", tram_error_describe(error.code ? &error : NULL, status));
        return status;
    }
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    return tram_runtime_run(runtime);
}

static int read_table(int count, char **words) {
    table = (struct entry *)calloc((size_t)count + 1, sizeof *table);
    for (int i = 0; table && i < count; i++) {
        const char *equals = strchr(words[i], '=');
        struct entry *entry = &table[entries++];
        if (!equals || inet_pton(AF_INET, equals + 1, &entry->address) != 1) {
            fprintf(stderr, "dns-responder: not NAME=ADDRESS: %s\n", words[i]);
            return 2;
        }
        entry->name = words[i];
        entry->size = (size_t)(equals - words[i]);
    }
    return table ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        fputs("usage: dns-responder PORT NAME=ADDRESS...\n"
              "Answers DNS queries for IPv4 addresses of these names, until SIGINT or SIGTERM.\n",
              argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    const tram_runtime_options options = {.handle_signals = true, .loop = {.log = tram_log_to_stderr}};
    tram_runtime *runtime = NULL;
    int status = read_table(argc - 2, argv + 2);
    if (!status && tram_runtime_new(&options, &runtime))
        status = 1;
    if (!status)
        status = serve(runtime, argv[1]) < 0;
    tram_runtime_free(runtime);
    free(table);
    return status;
}
