/*
 * TLS of one connection, over two functions that read and write what is below it. Knows no transport: layer.c puts it
 * into one. All calls on the loop's thread; none of them calls the user, but the function that chooses by server name.
 *
 * Bytes from the peer are read when a call here needs them, straight into OpenSSL's own buffer; records leave from
 * OpenSSL's own buffer, too.
 */
#ifndef TRAM_TRANSPORTS_TLS_ENGINE_H
#define TRAM_TRANSPORTS_TLS_ENGINE_H

#include <sys/types.h>

#include "transports/tls/context.h"
#include <tram/buffer.h>

struct tls_engine;

struct tls_below {
    /* Up to `size` bytes from below: how many; 0: it has ended; -EAGAIN: not now; else the error that ended it. */
    ssize_t (*read)(struct tls_engine *engine, void *memory, size_t size);
    /* False: a read would say -EAGAIN. */
    bool (*may_read)(const struct tls_engine *engine);
    /* Takes all, always. */
    void (*write)(struct tls_engine *engine, const void *data, size_t size);
};

/* Each connection has one: the order leaves no gaps. */
struct tls_engine {
    SSL *ssl; /* NULL: not started */
    const struct tls_below *below;
    struct tls_loop *loop;
    struct tls_context *context;
    struct list idle_link;  /* idle.h */
    uint64_t key_update_ns; /* when the peer has used up its key updates: see count_key_update() */
    uint16_t idle_round;    /* in which it was used last; 0: OpenSSL gives its buffers back after each use */
    int16_t below_code;     /* why reading below ended; 0: in order */
    bool more;              /* the layer's: the record that is being written is not the last */
    uint8_t uses;           /* since its buffers were given back, up to TRAM_TLS_BUSY_USES */
    bool server : 1;
    bool hello_seen : 1;  /* the user's function has chosen, or there is none */
    bool established : 1; /* the handshake is done */
    bool below_ended : 1;
    bool failed : 1; /* OpenSSL will not do anything any more, nor may it be asked to */
    bool flooded : 1;
    bool close_sent : 1;     /* close_notify of ours */
    bool close_received : 1; /* … of the peer's */
    bool refused : 1;        /* the user's function has, for the server name */
    bool unclean : 1;        /* the layer's: the stream was cut off, no close_notify came */
};

struct tls_engine_options {
    tram_tls_config *config;
    bool server;
    const char *server_hostname; /* of a client; NULL or "": no name is sent or checked */
    tram_buffer *session;        /* of a client: a former one to resume; NULL: none */
};

/* TRAM_EVALUE for what makes no sense, with the option. On failure there is nothing to free. */
int tram__tls_engine_start(struct tls_engine *engine, tram_loop *loop, const struct tls_below *below,
                           const struct tls_engine_options *options, struct tls_failure *failure);
void tram__tls_engine_free(struct tls_engine *engine);

/* 1: done; 0: more bytes are needed from below; negative: failed, an alert was written. */
int tram__tls_engine_handshake(struct tls_engine *engine, struct tls_failure *failure);

/* False: a read would say -EAGAIN. To let OpenSSL find that out costs a fifth of an echo. */
bool tram__tls_engine_may_read(const struct tls_engine *engine);

/*
 * Bytes for the user: how many; -EAGAIN: none yet; 0: the stream has ended, by the peer's close_notify if
 * close_received, else cut off; else failed.
 */
ssize_t tram__tls_engine_read(struct tls_engine *engine, void *memory, size_t size, struct tls_failure *failure);

/* Sends them all: 0, or failed. */
int tram__tls_engine_write(struct tls_engine *engine, const void *data, size_t size, struct tls_failure *failure);

/* Sends close_notify, once, where that can be. The peer's is waited for by reading. */
void tram__tls_engine_close(struct tls_engine *engine);

/* New keys for what we send, and the peer shall use new ones, too (TLS 1.3). */
int tram__tls_engine_update_keys(struct tls_engine *engine, struct tls_failure *failure);

/* Bytes that were decrypted and not read yet. */
size_t tram__tls_engine_pending(const struct tls_engine *engine);

/* From one loop to another: leaves the one, on its thread, and arrives at the other. -ENOMEM: it is where it was. */
void tram__tls_engine_leave(struct tls_engine *engine);
int tram__tls_engine_arrive(struct tls_engine *engine, tram_loop *loop);

/* The session of a client in DER, to resume it later: NULL with code 0 where there is none (yet). */
int tram__tls_engine_session(const struct tls_engine *engine, tram_buffer **ret_session);

#endif
