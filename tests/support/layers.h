/*
 * A layer for tests, and connections with it: what the transport does must not depend on what a layer makes of bytes.
 *
 * The layer cuts what is written into frames with a header and turns every byte, so sizes change and a receive brings
 * parts of frames. It needs three flights each way before it is ready; after some bytes it asks the peer a question,
 * keeps what is written until the answer comes, and answers inside of `read`; it says goodbye in `shutdown` and waits
 * for the peer's.
 */
#ifndef TRAM_TESTS_LAYERS_H
#define TRAM_TESTS_LAYERS_H

#include "support/support.h"
#include "transports/base/layer.h"

#define CODEC_ASKS_AFTER 20000 /* bytes of the user's */

/* Bytes in memory that grows by doubling: a sanitizer's realloc always copies. */
struct kept {
    char *bytes;
    size_t size;
    size_t capacity;
};

struct codec {
    struct layer layer;
    struct world *world;
    char in[3000]; /* what was read from below */
    size_t in_start;
    size_t in_end;
    size_t payload;   /* of the data frame whose header was read: still to deliver */
    struct kept kept; /* waits for the answer */
    size_t since_question;
    unsigned hellos_sent;
    unsigned hellos_seen;
    bool waits_for_answer;
    bool ended;        /* the peer's stream */
    bool said_goodbye; /* or its end */
    bool unclean;      /* the stream below ended first */
    bool ignores_goodbyes;
    bool never_asks;
    bool leaves;         /* removes itself as soon as it is ready */
    unsigned fail_start; /* at this hello: with -EPROTO and a text */
    int started;         /* how often `started` was called */
    int started_code;    /* of its error */
    char started_text[64];
    unsigned left;    /* how often it left a loop */
    unsigned arrived; /* … and came to one */
    int refuses;      /* to leave: with this code */
    int lands_with;   /* arrive fails with this code */
    unsigned *live;   /* counts those that were not freed */
};

extern const struct layer_kind codec_kind;       /* with write_eof */
extern const struct layer_kind codec_whole_kind; /* without, and it stays on its loop */

struct codec *codec_new(struct world *world, const struct layer_kind *kind, unsigned *live);

/*
 * What channel_begin() lays over carriers: codecs, unless a test has set something else (TLS: support/tls/overlay.h).
 * Puts one more layer on each end.
 */
struct channel;
extern void (*channel_overlay)(struct channel *channel);

/* ---- Connections ---- */

enum carrier {
    CARRIER_TCP,
    CARRIER_UNIX,
    CARRIER_PAIR,
    CARRIER_CUSTOM, /* custom transports, whose bytes travel as those of two others, over Unix sockets */
    CARRIER_TUNNEL, /* … and those have a layer of their own */
    CARRIER_COUNT
};

/* Two transports, each with `depth` layers; both protocols keep what they receive. */
struct channel {
    struct world *world;
    enum carrier carrier;
    unsigned depth;
    struct recorder *a, *b;
    tram_transport *first, *second;
    struct codec *first_codec, *second_codec; /* the top ones; NULL: other layers */
    unsigned live;                            /* layers */
    unsigned below;                           /* transports and layers that carry the two, of custom transports */
};

/* Without layers, and before connection_made. */
void channel_open_bare(struct channel *channel, struct world *world, enum carrier carrier, struct recorder *a,
                       struct recorder *b);

/* With them. */
void channel_open(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth,
                  const struct layer_kind *kind);

/* With channel_overlay's. */
void channel_begin(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth);

/* The same, when connection_made of both is behind it; the trace is empty. */
void channel_open_made(struct channel *channel, struct world *world, enum carrier carrier, unsigned depth);

/* The pieces that have no transport of their own below. */
static inline bool carrier_is_socket(enum carrier carrier) {
    return carrier <= CARRIER_UNIX;
}

/* Ends what is still open, and checks that all layers were freed. The trace is empty then. */
void channel_close(struct channel *channel);

/* Runs until the recorder has so many bytes, and compares them with the pattern of support/stream.h. */
void await_pattern(struct channel *channel, struct recorder *recorder, size_t size);

#endif
