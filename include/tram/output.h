/*
 * An output builder: what is formatted stands where the transport sends it from. No buffer of yours, no allocation
 * between, no copy at the end, and one system call for all of it.
 *
 *     tram_output output;
 *     tram_output_begin(&output, transport);
 *     tram_output_text(&output, "VALUE ");
 *     tram_output_bytes(&output, key, key_size);
 *     tram_output_printf(&output, " %u %zu\r\n", flags, size);
 *     tram_output_buffer(&output, value);
 *     tram_output_crlf(&output);
 *     return tram_output_send(&output);
 *
 * It lives within one callback, usually on the stack, and ends with tram_output_send() or tram_output_drop(). What
 * others write to the transport meanwhile comes first. The calls in between return nothing: a lack of memory is
 * remembered, and then nothing is sent and tram_output_send() says -ENOMEM. Thread: the loop's.
 */
#ifndef TRAM_OUTPUT_H
#define TRAM_OUTPUT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <tram/buffer.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* All members are the library's. */
typedef struct tram_output {
    tram_transport *transport;
    char *at;    /* the next byte goes here, … */
    char *end;   /* … if it is before this */
    char *begin; /* bytes from here on are not counted in the chain yet */
    size_t size; /* the chain: bytes, … */
    void *last;  /* … and last piece */
    int status;
    uintptr_t reserved[5];
} tram_output;

/* Begins an empty output. It takes memory of the transport's loop with the first byte. */
TRAM_API void tram_output_begin(tram_output *output, tram_transport *transport);

/*
 * Sends it as tram_transport_writelines() would: at once what the kernel takes if nothing is queued, the rest later,
 * and without copying it. Returns what that returns; -ENOMEM ends the connection, as with every write; -EILSEQ: a
 * printf could not be formatted, nothing was sent. The output is empty afterwards, and may be filled again.
 */
TRAM_API int tram_output_send(tram_output *output);

/* Forgets what was not sent. */
TRAM_API void tram_output_drop(tram_output *output);

/* Bytes so far. */
TRAM_API size_t tram_output_size(const tram_output *output);

/* ---- Text ---- */

TRAM_API void tram_output_bytes(tram_output *output, const void *data, size_t size);
TRAM_API void tram_output_text(tram_output *output, const char *text);
TRAM_API void tram_output_byte(tram_output *output, unsigned char byte);
TRAM_API void tram_output_crlf(tram_output *output);

/* A number in decimal digits; tram_output_signed() with a minus where it is negative. */
TRAM_API void tram_output_decimal(tram_output *output, uint64_t value);
TRAM_API void tram_output_signed(tram_output *output, int64_t value);

/* A number in lower-case hexadecimal digits, at least `digits` of them (at most 16). */
TRAM_API void tram_output_hex(tram_output *output, uint64_t value, unsigned digits);

TRAM_API void tram_output_printf(tram_output *output, const char *format, ...) TRAM_PRINTF(2, 3);
TRAM_API void tram_output_vprintf(tram_output *output, const char *format, va_list arguments) TRAM_PRINTF(2, 0);

/* ---- Binary ---- */

/* The low `size` bytes of a number, 1 to 8, big or little endian. */
TRAM_API void tram_output_be(tram_output *output, uint64_t value, size_t size);
TRAM_API void tram_output_le(tram_output *output, uint64_t value, size_t size);

/* 7 bits a byte, the lowest first (TRAM_LENGTH_VARINT of tram/input.h). */
TRAM_API void tram_output_varint(tram_output *output, uint64_t value);

/*
 * Adds `size` bytes for the caller to fill until tram_output_send(): a length that is known only then, for example.
 * NULL: out of memory.
 */
TRAM_API void *tram_output_reserve(tram_output *output, size_t size);

/*
 * Adds a shared buffer by reference, or a copy of its bytes where that is cheaper, up to 1 KiB; the caller's stays the
 * caller's (tram_transport_write_buffer()).
 */
TRAM_API void tram_output_buffer(tram_output *output, tram_buffer *buffer);

TRAM_END_DECLS

#endif
