/*
 * A hashing service on all cores: each line that comes is answered by a line with its SHA-256, in order.
 *
 *     $ printf 'hello' | openssl dgst -sha256
 *     $ echo hello | nc -q1 127.0.0.1 7003
 *
 * Long lines are hashed on the loop's pool of threads, so that other clients do not wait. Meanwhile the client's input
 * is paused: its next lines wait in it, and then in the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { LINE_MAX_BYTES = 1 << 20, LONG_LINE = 16384, DIGEST = 32 };

/* ---- SHA-256 (FIPS 180-4) ---- */

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, int bits) {
    return word >> bits | word << (32 - bits);
}

static void hash_block(uint32_t state[8], const unsigned char block[64]) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t first = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                         ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[i] + w[i];
        uint32_t second =
            (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        for (int k = 7; k > 0; k--)
            s[k] = s[k - 1];
        s[4] += first;
        s[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

static void hash(const char *data, size_t size, uint32_t state[8]) {
    static const uint32_t begin[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char last[128] = {0};
    size_t whole = size / 64 * 64, rest = size - whole, padded = rest < 56 ? 64 : 128;
    memcpy(state, begin, sizeof begin);
    for (size_t at = 0; at < whole; at += 64)
        hash_block(state, (const unsigned char *)data + at);
    memcpy(last, data + whole, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++)
        last[padded - 1 - i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    for (size_t at = 0; at < padded; at += 64)
        hash_block(state, last + at);
}

/* ---- The service ---- */

typedef struct client {
    tram_protocol base;
    tram_input input;
    tram_future *hashing; /* NULL: nothing is hashed elsewhere */
    int users;            /* the connection and the hashing; the last one frees */
} client;

static void client_drop(client *self) {
    if (--self->users > 0)
        return;
    tram_input_fini(&self->input);
    free(self);
}

/* A line that is hashed on another thread: its own copy, and what came out. */
typedef struct job {
    uint32_t state[8];
    size_t size;
    char line[];
} job;

static int answer(tram_transport *transport, const uint32_t state[8]) {
    tram_output output;
    tram_output_begin(&output, transport);
    for (int i = 0; i < DIGEST / 4; i++)
        tram_output_hex(&output, state[i], 8);
    tram_output_byte(&output, '\n');
    return tram_output_send(&output);
}

static int hash_job(void *arg, void **ret_result) {
    job *work = (job *)arg;
    hash(work->line, work->size, work->state);
    *ret_result = work;
    return 0;
}

/* On the loop again, where the client may have gone meanwhile. */
static int hashed(tram_future *future, void *arg) {
    client *self = (client *)arg;
    void *result = NULL;
    int status = tram_future_result(future, &result);
    self->hashing = NULL;
    tram_future_release(future);
    if (!status && self->base.transport) {
        answer(self->base.transport, ((job *)result)->state);
        tram_input_resume(&self->input);
    } else if (self->base.transport) {
        tram_transport_abort(self->base.transport);
    }
    free(result);
    client_drop(self);
    return 0;
}

static int hash_elsewhere(client *self, tram_bytes line) {
    job *work = (job *)malloc(sizeof *work + line.size);
    if (!work)
        return -ENOMEM;
    work->size = line.size;
    memcpy(work->line, line.data, line.size);
    tram_job options = {.function = hash_job, .arg = work, .discard = free, .free_result = free};
    tram_loop *loop = tram_transport_get_loop(self->base.transport);
    int status = tram_loop_run_job(loop, NULL, &options, &self->hashing);
    if (status) {
        free(work);
        return status;
    }
    tram_input_pause(&self->input);
    self->users++;
    return tram_future_add_done_callback(self->hashing, hashed, self);
}

static int parse(tram_protocol *protocol, tram_input *input) {
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line))) {
        uint32_t state[8];
        if (line.size > LONG_LINE) {
            status = hash_elsewhere((client *)protocol, line);
        } else {
            hash(line.data, line.size, state);
            status = answer(protocol->transport, state);
        }
        if (status)
            break;
    }
    return status;
}

static int client_lost(tram_protocol *protocol, const tram_error *error) {
    client *self = (client *)protocol;
    (void)error;
    if (self->hashing)
        tram_future_cancel(self->hashing);
    return 0;
}

static void client_released(tram_protocol *protocol) {
    client_drop((client *)protocol);
}

static const tram_protocol_ops client_ops = {
    .data_received = tram_input_data_received,
    .eof_received = tram_input_eof_received,
    .pause_writing = tram_input_pause_writing, /* one who does not read his answers gets no more of them */
    .resume_writing = tram_input_resume_writing,
    .closing = tram_input_closing,
    .connection_lost = client_lost,
    .released = client_released,
};

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    client *self = (client *)calloc(1, sizeof *self);
    if (!self)
        return -ENOMEM;
    self->base.ops = &client_ops;
    self->users = 1;
    *ret_protocol = &self->base;
    tram_input_options options = {.limit = LINE_MAX_BYTES, .loop = loop, .protocol = &self->base, .parse = parse};
    return tram_input_init(&self->input, &options);
}

int main(int argc, char **argv) {
    tram_serve_options options = {
        .name = "hash-server", .summary = "answers each line with its SHA-256", .port = "7003"};
    return tram_serve_main(argc, argv, client_factory, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
}
