/* Messages whose size is known: from the caller, or from a length before them. */
#include "protocols/input/input.h"

#include <errno.h>

#include "core/base/invalid.h"

#define VARINT_MAX 10u /* bytes of 7 bits each for 64 */

/* Enters; the first `size` bytes are there. */
static int enter_for(tram_input *input, size_t size) {
    int status = tram__input_enter(input);
    if (unlikely(status))
        return status;
    if (unlikely(tram__input_over_limit(input, size)))
        return TRAM_ELIMIT;
    return tram_input_size(input) < size ? tram__input_lacks(input, size) : 0;
}

int tram_input_peek(tram_input *input, size_t size, tram_bytes *ret_bytes) {
    const char *bytes;
    int status = enter_for(input, size);
    if (likely(!status))
        status = tram__input_view(input, input->at, size, &bytes);
    if (unlikely(status))
        return status;
    *ret_bytes = (tram_bytes){bytes, size};
    tram__input_advance(input, 0);
    return 0;
}

int tram_input_take(tram_input *input, size_t size, tram_bytes *ret_bytes) {
    int status = tram_input_peek(input, size, ret_bytes);
    if (!status)
        tram__input_advance(input, size);
    return status;
}

int tram_input_consume(tram_input *input, size_t size) {
    int status = enter_for(input, size);
    if (!status)
        tram__input_advance(input, size);
    return status;
}

int tram_input_some(tram_input *input, size_t most, tram_bytes *ret_bytes) {
    int status = tram__input_enter(input);
    if (unlikely(status))
        return status;
    if (!most)
        return tram__invalid("most");
    if (!tram_input_size(input))
        return tram__input_lacks(input, 1);
    *ret_bytes = tram__input_piece(input, input->at);
    ret_bytes->size = MIN(ret_bytes->size, most);
    tram__input_advance(input, ret_bytes->size);
    return 0;
}

/* ---- Frames ---- */

/* The length of a frame, and of the length itself. */
struct length {
    uint64_t frame;
    size_t itself;
};

static unsigned char byte_at(const tram_input *input, size_t offset) {
    return (unsigned char)*tram__input_piece(input, input->at + offset).data;
}

static int fixed_length(tram_input *input, size_t size, bool big_endian, struct length *ret_length) {
    if (tram_input_size(input) < size)
        return tram__input_lacks(input, size);
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value = value << 8 | byte_at(input, big_endian ? i : size - 1 - i);
    *ret_length = (struct length){value, size};
    return 0;
}

static int varint_length(tram_input *input, struct length *ret_length) {
    size_t present = tram_input_size(input);
    uint64_t value = 0;
    for (size_t i = 0; i < VARINT_MAX; i++) {
        if (i == present)
            return tram__input_lacks(input, i + 1);
        unsigned char byte = byte_at(input, i);
        if (i == VARINT_MAX - 1 && byte > 1)
            return -EBADMSG; /* more than 64 bits */
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            *ret_length = (struct length){value, i + 1};
            return 0;
        }
    }
    return -EBADMSG;
}

static int read_length(tram_input *input, tram_length_prefix prefix, struct length *ret_length) {
    switch (prefix) {
    case TRAM_LENGTH_U8:
        return fixed_length(input, 1, true, ret_length);
    case TRAM_LENGTH_U16_BE:
    case TRAM_LENGTH_U16_LE:
        return fixed_length(input, 2, prefix == TRAM_LENGTH_U16_BE, ret_length);
    case TRAM_LENGTH_U32_BE:
    case TRAM_LENGTH_U32_LE:
        return fixed_length(input, 4, prefix == TRAM_LENGTH_U32_BE, ret_length);
    case TRAM_LENGTH_U64_BE:
    case TRAM_LENGTH_U64_LE:
        return fixed_length(input, 8, prefix == TRAM_LENGTH_U64_BE, ret_length);
    case TRAM_LENGTH_VARINT:
        return varint_length(input, ret_length);
    }
    return tram__invalid("prefix");
}

int tram_input_frame(tram_input *input, tram_length_prefix prefix, tram_bytes *ret_frame) {
    struct length length;
    int status = tram__input_enter(input);
    if (likely(!status))
        status = read_length(input, prefix, &length);
    if (status)
        return status;
    if (unlikely(tram__input_over_limit(input, length.frame)))
        return TRAM_ELIMIT;
    size_t size = (size_t)length.frame, all = length.itself + size;
    if (tram_input_size(input) < all)
        return tram__input_lacks(input, all);
    const char *bytes;
    status = tram__input_view(input, input->at + length.itself, size, &bytes);
    if (unlikely(status))
        return status;
    *ret_frame = (tram_bytes){bytes, size};
    tram__input_advance(input, all);
    return 0;
}
