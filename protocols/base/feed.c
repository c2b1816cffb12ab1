/* Bytes for a protocol that come from elsewhere than its transport. */
#include <string.h>

#include "core/base/invalid.h"
#include <tram/protocol.h>

static int feed_buffers(tram_protocol *protocol, const char *from, size_t size) {
    const tram_protocol_ops *ops = protocol->ops;
    while (size) {
        void *memory = NULL;
        size_t room = 0;
        int status = ops->get_buffer(protocol, (ptrdiff_t)size, &memory, &room);
        if (status < 0)
            return status;
        if (!memory || !room)
            return TRAM_ESTATE;
        size_t part = MIN(room, size);
        memcpy(memory, from, part);
        status = ops->buffer_updated ? ops->buffer_updated(protocol, part) : 0;
        if (status < 0)
            return status;
        from += part;
        size -= part;
    }
    return 0;
}

int tram_protocol_feed(tram_protocol *protocol, const void *data, size_t size) {
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    if (!data && size)
        return tram__invalid("data");
    if (protocol->ops->get_buffer)
        return feed_buffers(protocol, data, size);
    int status = size && protocol->ops->data_received ? protocol->ops->data_received(protocol, data, size) : 0;
    return MIN(status, 0);
}
