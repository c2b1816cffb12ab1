/*
 * An input buffer for parsers: bytes go in in pieces of any size, whole messages come out.
 *
 *     static int parse(tram_protocol *self, tram_input *input) {
 *         tram_bytes line;
 *         int status;
 *         while (!(status = tram_input_line(input, &line)))
 *             answer(self, line.data, line.size);
 *         return status;
 *     }
 *     static int data_received(tram_protocol *self, const void *data, size_t size) {
 *         return tram_input_feed(&((client *)self)->input, data, size);
 *     }
 *     static int eof_received(tram_protocol *self) {
 *         return tram_input_feed_eof(&((client *)self)->input);
 *     }
 *
 * A message that came whole is parsed where it lies, in the loop's receive buffer: only what the parser leaves is
 * copied. An input that has nothing to keep has no memory.
 *
 * The calls that take a message have one rule. They return
 *
 *     0               the message is in the view, and is consumed;
 *     -EAGAIN         not now: it is not all there yet, or the input is paused, or the transport is closing;
 *     TRAM_ELIMIT     it is longer than the limit: known from its length alone, before memory is taken for it;
 *     TRAM_EINCOMPLETE  the stream ended within it (an end between two messages is -EAGAIN);
 *     -EBADMSG        it is malformed; -ENOMEM: it came in pieces, which could not be joined.
 *
 * Whatever is not 0 consumes nothing, and may be asked again. A parser that takes until a call fails returns what
 * failed: -EAGAIN is no failure of a parser, all others end the connection.
 *
 * A view stays valid until the parser returns; without a parser until the next feed, or until the input is freed.
 * An input belongs to the thread of its loop.
 */
#ifndef TRAM_INPUT_H
#define TRAM_INPUT_H

#include <stdbool.h>

#include <tram/memory.h>
#include <tram/protocol.h>

TRAM_BEGIN_DECLS

typedef struct tram_input tram_input;

/* A view of bytes that are somebody else's. */
typedef struct tram_bytes {
    const char *data;
    size_t size;
} tram_bytes;

/*
 * Takes as many messages as it can and returns the last status, see above. It is called within feed, feed_eof and
 * resume, and not before what the last failed call waits for can be there. It may call anything but feed, feed_eof and
 * fini.
 */
typedef int (*tram_input_parser)(tram_protocol *protocol, tram_input *input);

typedef struct tram_input_options {
    /* Bytes that one message may have, without its separator or length; 0: 64 KiB. */
    size_t limit;
    /* Whose allocator keeps what is left; NULL: the default one. */
    tram_loop *loop;
    /* The protocol that the bytes are for: its transport reads slower when more than twice the limit waits. May be
     * NULL. */
    tram_protocol *protocol;
    /* NULL: whoever feeds takes the messages itself, afterwards. */
    tram_input_parser parse;
    uintptr_t reserved[4]; /* must be 0 */
} tram_input_options;

/* Embed it in the struct of your protocol. All members are the library's. */
struct tram_input {
    struct tram_input_block *block; /* what was kept, the consumed included */
    size_t size;                    /* bytes of the block that are used */
    const char *borrowed;           /* what comes behind them: the bytes of the feed that is running */
    size_t borrowed_size;
    uint64_t base;       /* place of the block's first byte in the stream */
    uint64_t at;         /* place of the first byte that is not consumed */
    uint64_t mark;       /* tram_input_mark() */
    uint64_t needed;     /* the parser is not called before the stream is this long */
    uint64_t search_key; /* what was looked for last … */
    uint64_t search_from;
    uint64_t search_to; /* … and begins nowhere from here to there */
    size_t limit;
    tram_allocator allocator;
    tram_protocol *protocol;
    tram_input_parser parse;
    struct tram_input_block *outgrown; /* blocks that views may still point into */
    tram_handle resumed;               /* the call of the parser that resume asked for, … */
    tram_loop *resumed_loop;           /* … and of which loop; NULL: none */
    uint32_t flags;
    uint32_t pauses; /* that were not taken back */
    uintptr_t reserved[4];
};

/* Begins an empty input; it takes no memory. `options` may be NULL. TRAM_EVALUE: reserved words that are not 0. */
TRAM_API int tram_input_init(tram_input *input, const tram_input_options *options);

/* Frees what was kept: in the protocol's `released`, or from connection_lost on. All zero is allowed, twice too. */
TRAM_API void tram_input_fini(tram_input *input);

/* ---- Bytes come ---- */

/*
 * Bytes came (StreamReader.feed_data): calls the parser, then copies what it left. Returns 0 or the parser's failure,
 * for data_received to return. -ENOMEM: what was left could not be kept. TRAM_ESTATE: called by the parser, or after
 * feed_eof.
 */
TRAM_API int tram_input_feed(tram_input *input, const void *data, size_t size);

/*
 * The stream ended (StreamReader.feed_eof): the parser is called a last time, for a message that was cut off. Returns
 * what eof_received is to return: 0, or the parser's failure; or 1 while the input is paused, and then the
 * transport is closed once the parser was resumed and is done.
 */
TRAM_API int tram_input_feed_eof(tram_input *input);

/* True when nothing is left and nothing will come (StreamReader.at_eof). */
TRAM_API bool tram_input_at_eof(const tram_input *input);

/* Bytes that are there and not consumed. */
TRAM_API size_t tram_input_size(const tram_input *input);

/* ---- Not now ---- */

/*
 * The parser wants no more messages for now, for example until a lookup is answered or in pause_writing: from here on
 * every call that takes says -EAGAIN, and bytes are kept. Above twice the limit the transport stops reading. Pauses
 * count: a lookup and pause_writing may each have theirs, and need not know of each other. Use this instead of
 * tram_transport_pause_reading(), which the input itself calls.
 */
TRAM_API void tram_input_pause(tram_input *input);

/*
 * Takes one pause back; harmless where there is none. After the last one the parser is called soon by the loop if there
 * is something for it, and its failure ends the connection. Without a transport it is called at once, and its failure
 * returned. Without a parser this only ends the pause.
 */
TRAM_API int tram_input_resume(tram_input *input);

TRAM_API bool tram_input_is_paused(const tram_input *input);

/*
 * The protocol is asked to end (`closing` in tram/protocol.h): its transport is closed once all that came was parsed,
 * at once perhaps. What may still be to do is waited for: a message that is there in part, and pauses. Returns 0, for
 * `closing` to return. Without a transport nothing is closed.
 */
TRAM_API int tram_input_end(tram_input *input);

/* ---- Taking messages ---- */

/* The next line, without the LF or CRLF that ends it, which lies behind the view. */
TRAM_API int tram_input_line(tram_input *input, tram_bytes *ret_line);

/*
 * What comes before `separator`, of `size` bytes, which is consumed with it and lies behind the view
 * (StreamReader.readuntil).
 */
TRAM_API int tram_input_until(tram_input *input, const void *separator, size_t size, tram_bytes *ret_message);

/*
 * The same for whichever of `count` separators ends first; of those that end together the shortest. `ret_which`, its
 * number, may be NULL. TRAM_EVALUE: an empty separator, or none.
 */
TRAM_API int tram_input_until_any(tram_input *input, const tram_bytes *separators, size_t count,
                                  tram_bytes *ret_message, size_t *ret_which);

/* Exactly `size` bytes (StreamReader.readexactly). */
TRAM_API int tram_input_take(tram_input *input, size_t size, tram_bytes *ret_bytes);

/* How a frame says its length, which does not count the length itself. */
typedef enum tram_length_prefix {
    TRAM_LENGTH_U8 = 1,
    TRAM_LENGTH_U16_BE,
    TRAM_LENGTH_U16_LE,
    TRAM_LENGTH_U32_BE,
    TRAM_LENGTH_U32_LE,
    TRAM_LENGTH_U64_BE,
    TRAM_LENGTH_U64_LE,
    TRAM_LENGTH_VARINT, /* 7 bits a byte, the lowest first, at most ten (protocol buffers) */
} tram_length_prefix;

/* The next frame, without its length. TRAM_EVALUE: no such prefix. */
TRAM_API int tram_input_frame(tram_input *input, tram_length_prefix prefix, tram_bytes *ret_frame);

/* What is there, at most `most` bytes and at least one, without a copy: perhaps less than the size (StreamReader.read).
 */
TRAM_API int tram_input_some(tram_input *input, size_t most, tram_bytes *ret_bytes);

/* As take, and consumes nothing. */
TRAM_API int tram_input_peek(tram_input *input, size_t size, tram_bytes *ret_bytes);

/* As take, for who has seen enough of the bytes. */
TRAM_API int tram_input_consume(tram_input *input, size_t size);

/*
 * For messages of several parts: mark where each message begins, and rewind to there where a later part says -EAGAIN.
 * What was consumed since the mark counts against the limit. A mark is forgotten when the parser returns, or at the
 * next feed.
 */
TRAM_API void tram_input_mark(tram_input *input);
TRAM_API void tram_input_rewind(tram_input *input);

/* ---- The callbacks of a protocol with an input ---- */

/*
 * Entries for the table of a protocol whose struct begins with a tram_protocol and then a tram_input: they feed the
 * input, pause it while too much is queued for writing, and answer what came before they end. Its factory calls
 * tram_input_init(), its `released` tram_input_fini().
 */
TRAM_API int tram_input_data_received(tram_protocol *protocol, const void *data, size_t size);
TRAM_API int tram_input_eof_received(tram_protocol *protocol);
TRAM_API int tram_input_pause_writing(tram_protocol *protocol);
TRAM_API int tram_input_resume_writing(tram_protocol *protocol);
TRAM_API int tram_input_closing(tram_protocol *protocol, uint64_t deadline_ns);

TRAM_END_DECLS

#endif
