#include "transports/proxy/header_layer.h"

#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/base/entering.h"
#include "transports/base/held.h"
#include "transports/proxy/header.h"

struct header_layer {
    struct layer layer;
    tram_loop *loop;
    size_t size;
    char bytes[TRAM_PROXY_HEADER_MAX];
};

static struct header_layer *of(struct layer *layer) {
    return container_of(layer, struct header_layer, layer);
}

/* From now on these are its addresses, and what comes with them stays with it. 0 or -ENOMEM. */
static int take_over(tram_transport *transport, const struct header_layer *layer, const struct proxy_header *header) {
    struct transport_addresses *addresses = tram__transport_addresses(transport);
    if (!addresses)
        return -ENOMEM;
    if (header->local)
        return 0;
    if (header->size > header->tlvs_at) {
        addresses->tlvs = tram__held_new(layer->loop, layer->bytes + header->tlvs_at, header->size - header->tlvs_at);
        if (!addresses->tlvs)
            return -ENOMEM;
    }
    addresses->sock = header->destination;
    addresses->peer = header->source; /* transport->peer stays who connected, by whom its server's limits count it */
    return 0;
}

static int start(struct layer *base) {
    struct header_layer *layer = of(base);
    struct proxy_header header;
    int status;
    while ((status = tram__proxy_parse(layer->bytes, layer->size, &header)) == 0) {
        ssize_t got = tram__layer_read(base, layer->bytes + layer->size, sizeof layer->bytes - layer->size);
        if (got == 0)
            tram__layer_fail(base, -ECONNRESET, "proxy_header", "the stream ended before the header did");
        if (got <= 0)
            return got ? (int)got : -ECONNRESET;
        layer->size += (size_t)got;
    }
    if (status < 0) {
        tram__layer_fail(base, status, "proxy_header", "what came is no header of the PROXY protocol");
        return status;
    }
    status = take_over(base->transport, layer, &header);
    return status ? status : tram__layer_remove(base, layer->bytes + header.size, layer->size - header.size);
}

static void free_layer(struct layer *base) {
    struct header_layer *layer = of(base);
    memory_put(&layer->loop->allocator, layer, sizeof *layer);
}

static const struct layer_kind kind = {
    .name = "proxy_header", .start = start, .free = free_layer, .start_timeout_code = -ETIMEDOUT};

int tram__proxy_push(tram_transport *transport, uint64_t timeout_ns) {
    tram_loop *loop = loop_of(transport);
    struct header_layer *layer = memory_get(&loop->allocator, sizeof *layer);
    if (!layer)
        return -ENOMEM;
    layer->layer = (struct layer){.kind = &kind, .start_timeout_ns = timeout_ns};
    layer->loop = loop;
    layer->size = 0;
    int status = tram__transport_push_layer(transport, &layer->layer, NULL, 0);
    if (status)
        free_layer(&layer->layer);
    return status;
}

bool tram__proxy_possible(const tram_proxy_header *header) {
    char bytes[TRAM_PROXY_HEADER_MAX];
    return !reserved_used(header) && tram__proxy_format(header, bytes) > 0;
}

struct held *tram__proxy_bytes(tram_loop *loop, const tram_proxy_header *header) {
    char bytes[TRAM_PROXY_HEADER_MAX];
    ssize_t size = tram__proxy_format(header, bytes);
    return tram__held_new(loop, bytes, (size_t)size);
}

const void *tram_proxy_value(const tram_transport *transport, uint8_t type, size_t *ret_size) {
    const struct transport_addresses *addresses = transport->more ? transport->more->addresses : NULL;
    const struct held *tlvs = addresses ? addresses->tlvs : NULL;
    if (enter(transport, __func__) || !tlvs || !ret_size)
        return NULL;
    return tram__proxy_tlv(tlvs->bytes, tlvs->size, type, ret_size);
}
