/*
 * A cache in the memcached text protocol, sharded by key over the workers: each worker owns the keys that hash to it,
 * and nobody else touches them, so there is no lock. A command for another worker's key goes to that worker's loop by
 * tram_loop_call_soon_threadsafe() and comes back with its answer. Values are shared buffers: a value that another
 * worker found is sent from where it lies.
 *
 * get, gets, set, add, replace, append, prepend, cas, delete, incr, decr, touch, flush_all, stats, version, verbosity,
 * quit; noreply; values up to 1 MiB. The oldest of a worker's values make room for new ones.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include <tram/tram.h>

enum { KEY_MAX = 250, VALUE_MAX = 1 << 20, COMMAND_MAX = 65536, WORDS_MAX = 8, SHARDS_MAX = 1024, MONTH = 2592000 };

/* ---- A worker's shard ---- */

LIST_HEAD(bucket, item);
TAILQ_HEAD(order, item);

typedef struct item {
    LIST_ENTRY(item) bucket;
    TAILQ_ENTRY(item) order;
    tram_buffer *value; /* with the CRLF behind it */
    uint64_t hash, cas;
    int64_t expires; /* seconds of time(); 0: never */
    uint32_t flags, key_size;
    char key[];
} item;

/* What a shard counts, and stats sums up. */
enum { ITEMS, BYTES, LIMIT, GETS_DONE, HITS, SETS, EVICTIONS, COUNTS };

static const char *const count_names[COUNTS] = {"curr_items", "bytes",   "limit_maxbytes", "cmd_get",
                                                "get_hits",   "cmd_set", "evictions"};

typedef struct shard {
    tram_loop *loop;
    struct bucket *buckets;
    size_t bucket_count; /* a power of two */
    struct order order;  /* the newest first */
    uint64_t last_cas;
    unsigned count; /* of all shards */
    uint64_t counts[COUNTS];
} shard;

static shard shards[SHARDS_MAX];
static const char *memory_mib = "64";

static uint64_t hash_key(const char *key, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

static size_t value_size(const item *it) {
    return tram_buffer_size(it->value) - 2;
}

static size_t cost(const item *it) {
    return sizeof *it + it->key_size + tram_buffer_size(it->value) + 64;
}

static void item_free(item *it) {
    tram_buffer_release(it ? it->value : NULL);
    free(it);
}

static void unlink_item(shard *own, item *it) {
    LIST_REMOVE(it, bucket);
    TAILQ_REMOVE(&own->order, it, order);
    own->counts[ITEMS]--;
    own->counts[BYTES] -= cost(it);
    item_free(it);
}

static struct bucket *bucket_of(shard *own, uint64_t hash) {
    return &own->buckets[hash & (own->bucket_count - 1)];
}

/* The item of a key, unless its time is over. */
static item *find(shard *own, uint64_t hash, const char *key, size_t size) {
    item *it;
    LIST_FOREACH(it, bucket_of(own, hash), bucket)
    if (it->hash == hash && it->key_size == size && memcmp(it->key, key, size) == 0)
        break;
    if (!it || !it->expires || it->expires > time(NULL))
        return it;
    unlink_item(own, it);
    return NULL;
}

static void grow(shard *own) {
    struct bucket *buckets = calloc(own->bucket_count * 2, sizeof *buckets);
    item *it;
    if (!buckets)
        return; /* longer chains will do */
    free(own->buckets);
    own->buckets = buckets;
    own->bucket_count *= 2;
    TAILQ_FOREACH(it, &own->order, order)
    LIST_INSERT_HEAD(bucket_of(own, it->hash), it, bucket);
}

/* Puts an item in the place of the old one with its key, if there is one, and lets the oldest go. */
static void link_item(shard *own, item *it, item *old) {
    if (old)
        unlink_item(own, old);
    if (own->counts[ITEMS] >= own->bucket_count)
        grow(own);
    it->cas = ++own->last_cas;
    LIST_INSERT_HEAD(bucket_of(own, it->hash), it, bucket);
    TAILQ_INSERT_HEAD(&own->order, it, order);
    own->counts[ITEMS]++;
    own->counts[BYTES] += cost(it);
    while (own->counts[BYTES] > own->counts[LIMIT] && TAILQ_LAST(&own->order, order) != it) {
        own->counts[EVICTIONS]++;
        unlink_item(own, TAILQ_LAST(&own->order, order));
    }
}

static void flush(shard *own) {
    while (!TAILQ_EMPTY(&own->order))
        unlink_item(own, TAILQ_FIRST(&own->order));
}

/* ---- A command: filled in by the client's worker, carried out by the key's ---- */

/* Each command behind its letter, those that store in upper case, and behind how many words it has. */
static const char *const verbs[] = {
    "g29 get",       "c29 gets",  "S56 set",     "A56 add",       "R56 replace", "E56 append",
    "P56 prepend",   "C67 cas",   "d24 delete",  "i34 incr",      "e34 decr",    "t34 touch",
    "f13 flush_all", "s11 stats", "v11 version", "o13 verbosity", "q11 quit",    ""};

typedef struct command {
    char verb;
    bool noreply;
    uint64_t hash;
    char key[KEY_MAX];
    uint32_t key_size;
    int64_t expires;
    uint64_t number; /* of cas, incr and decr */
    item *stored;    /* what is to be stored; NULL once it is */
    /* the answer */
    const char *reply;
    tram_buffer *value; /* what was found */
    uint32_t flags;
    uint64_t cas;
    uint64_t totals[COUNTS]; /* of stats */
} command;

static bool is_get(const command *it) {
    return it->verb == 'g' || it->verb == 'c';
}

static void get(shard *own, command *it, item *found) {
    own->counts[GETS_DONE]++;
    if (!found)
        return;
    own->counts[HITS]++;
    TAILQ_REMOVE(&own->order, found, order);
    TAILQ_INSERT_HEAD(&own->order, found, order);
    it->value = tram_buffer_hold(found->value);
    it->flags = found->flags;
    it->cas = found->cas;
}

/* append and prepend: the new item gets both values and what the old one had. */
static const char *extend(const item *old, item *new, bool before) {
    const item *first = before ? new : old, *second = before ? old : new;
    size_t size = value_size(first) + tram_buffer_size(second->value);
    if (size > VALUE_MAX + 2)
        return "SERVER_ERROR object too large for cache";
    char *bytes = malloc(size);
    if (bytes) {
        memcpy(bytes, tram_buffer_data(first->value), value_size(first));
        memcpy(bytes + value_size(first), tram_buffer_data(second->value), tram_buffer_size(second->value));
    }
    tram_buffer *joined = bytes ? tram_buffer_copy(bytes, size) : NULL;
    free(bytes);
    if (!joined)
        return "SERVER_ERROR out of memory storing object";
    tram_buffer_release(new->value);
    new->value = joined;
    new->flags = old->flags;
    new->expires = old->expires;
    return NULL;
}

static const char *store(shard *own, command *it, item *old) {
    own->counts[SETS]++;
    if (it->verb == 'C' && !old)
        return "NOT_FOUND";
    if (it->verb == 'C' && old->cas != it->number)
        return "EXISTS";
    if ((it->verb == 'A' && old) || (!old && (it->verb == 'R' || it->verb == 'E' || it->verb == 'P')))
        return "NOT_STORED";
    const char *wrong = it->verb == 'E' || it->verb == 'P' ? extend(old, it->stored, it->verb == 'P') : NULL;
    if (wrong)
        return wrong;
    link_item(own, it->stored, old);
    it->stored = NULL;
    return "STORED";
}

static bool parse_number(tram_bytes text, uint64_t *ret_number) {
    uint64_t number = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint64_t digit = (uint64_t)(text.data[i] - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return text.size != 0;
}

/* The answer is the new number, which is also the value that is found. */
static const char *count(shard *own, command *it, item *found) {
    uint64_t number;
    char text[24];
    if (!parse_number((tram_bytes){tram_buffer_data(found->value), value_size(found)}, &number))
        return "CLIENT_ERROR cannot increment or decrement non-numeric value";
    number = it->verb == 'i' ? number + it->number : number > it->number ? number - it->number : 0;
    int size = snprintf(text, sizeof text, "%" PRIu64 "\r\n", number);
    tram_buffer *value = tram_buffer_copy(text, (size_t)size);
    if (!value)
        return "SERVER_ERROR out of memory";
    own->counts[BYTES] += tram_buffer_size(value) - tram_buffer_size(found->value);
    tram_buffer_release(found->value);
    found->value = value;
    found->cas = ++own->last_cas;
    it->value = tram_buffer_hold(value);
    return NULL;
}

static const char *change(shard *own, command *it, item *found) {
    if (it->verb == 't') {
        found->expires = it->expires;
        return "TOUCHED";
    }
    unlink_item(own, found);
    return "DELETED";
}

/* On the worker that owns the key. */
static void execute(shard *own, command *it) {
    bool of_all = it->verb == 'f' || it->verb == 's';
    item *found = of_all ? NULL : find(own, it->hash, it->key, it->key_size);
    it->reply = NULL;
    it->value = NULL;
    if (is_get(it))
        get(own, it, found);
    else if (isupper(it->verb))
        it->reply = store(own, it, found);
    else if (it->verb == 'f')
        flush(own);
    else if (it->verb == 's')
        for (size_t i = 0; i < COUNTS; i++)
            it->totals[i] += own->counts[i];
    else if (!found)
        it->reply = "NOT_FOUND";
    else
        it->reply = it->verb == 'i' || it->verb == 'e' ? count(own, it, found) : change(own, it, found);
}

/* ---- Clients ---- */

typedef struct client {
    tram_protocol base;
    tram_input input;
    tram_output output;  /* the answers to all that came, which leave together */
    shard *own, *target; /* of this client's worker; where the command goes */
    command now;         /* one at a time; another worker has it while the input is paused for it */
    bool is_back;        /* … and it is carried out */
    size_t step;         /* of a command of several: bytes of the line that are answered, shards that were asked */
    size_t skip;         /* bytes of a value that is too large */
    int users;           /* the connection and the command that is away; the last one frees */
} client;

static void client_drop(void *arg) {
    client *self = arg;
    if (--self->users > 0)
        return;
    tram_input_fini(&self->input);
    tram_buffer_release(self->now.value);
    item_free(self->now.stored);
    free(self);
}

static int reply(client *self, const char *text) {
    if (self->now.noreply)
        return 0;
    tram_output_text(&self->output, text);
    tram_output_crlf(&self->output);
    return 0;
}

static int answer_value(client *self) {
    command *it = &self->now;
    tram_output *output = &self->output;
    if (is_get(it)) {
        tram_output_text(output, "VALUE ");
        tram_output_bytes(output, it->key, it->key_size);
        tram_output_byte(output, ' ');
        tram_output_decimal(output, it->flags);
        tram_output_byte(output, ' ');
        tram_output_decimal(output, tram_buffer_size(it->value) - 2);
        if (it->verb == 'c') {
            tram_output_byte(output, ' ');
            tram_output_decimal(output, it->cas);
        }
        tram_output_crlf(output);
    }
    if (!it->noreply)
        tram_output_buffer(output, it->value);
    tram_buffer_release(it->value);
    it->value = NULL;
    return 0;
}

static int answer_stats(client *self) {
    for (size_t i = 0; i < COUNTS; i++)
        tram_output_printf(&self->output, "STAT %s %" PRIu64 "\r\n", count_names[i], self->now.totals[i]);
    tram_output_printf(&self->output, "STAT threads %u\r\nEND\r\n", self->own->count);
    memset(self->now.totals, 0, sizeof self->now.totals);
    return 0;
}

static int answer(client *self) {
    item_free(self->now.stored); /* it was not */
    self->now.stored = NULL;
    if (self->now.value)
        return answer_value(self);
    return self->now.reply ? reply(self, self->now.reply) : 0;
}

/* The client's worker again, where the connection may have gone meanwhile. */
static int came_back(tram_loop *loop, void *arg) {
    client *self = arg;
    (void)loop;
    self->is_back = true;
    tram_input_resume(&self->input);
    client_drop(self);
    return 0;
}

static int carry_out(tram_loop *loop, void *arg) {
    client *self = arg;
    (void)loop;
    execute(self->target, &self->now);
    if (tram_loop_call_soon_threadsafe(self->own->loop, came_back, self, client_drop))
        client_drop(self); /* the loop closes: nobody waits for the answer */
    return 0;
}

/* 0: it is carried out. -EAGAIN: it is on its way; its bytes stay in the input, and are parsed anew when it is back. */
static int run_at(client *self, shard *target) {
    if (!self->is_back && target == self->own)
        execute(target, &self->now);
    if (self->is_back || target == self->own) {
        self->is_back = false;
        return 0;
    }
    self->target = target;
    self->users++; /* before the post: the other thread may be done with it at once */
    int status = tram_loop_call_soon_threadsafe(target->loop, carry_out, self, client_drop);
    if (status) {
        self->users--;
        return status;
    }
    tram_input_pause(&self->input);
    return -EAGAIN;
}

static bool set_key(command *it, const char *key, size_t size) {
    if (!size || size > KEY_MAX)
        return false;
    memcpy(it->key, key, size);
    it->key_size = (uint32_t)size;
    it->hash = hash_key(key, size);
    return true;
}

static int run(client *self) {
    int status = run_at(self, &shards[(self->now.hash >> 40) % self->own->count]);
    return status ? status : answer(self);
}

/* stats and flush_all. */
static int run_everywhere(client *self) {
    int status = 0;
    for (; self->step < self->own->count && !status; self->step += !status)
        status = run_at(self, &shards[self->step]);
    if (status)
        return status;
    self->step = 0;
    return self->now.verb == 's' ? answer_stats(self) : reply(self, "OK");
}

/* ---- Parsing ---- */

/* Those that are not there are empty. */
static size_t split(tram_bytes line, tram_bytes words[WORDS_MAX]) {
    size_t count = 0;
    for (size_t i = 0; i < line.size && count < WORDS_MAX; i++) {
        size_t begin = i;
        while (i < line.size && line.data[i] != ' ')
            i++;
        if (i > begin)
            words[count++] = (tram_bytes){line.data + begin, i - begin};
    }
    return count;
}

static bool is(tram_bytes word, const char *text) {
    return word.size == strlen(text) && memcmp(word.data, text, word.size) == 0;
}

static const char *verb_of(tram_bytes word) {
    size_t i = 0;
    while (*verbs[i] && !is(word, verbs[i] + 4))
        i++;
    return verbs[i];
}

static bool time_of(tram_bytes word, int64_t *ret_expires) {
    bool minus = word.size > 1 && *word.data == '-';
    uint64_t number;
    if (!parse_number((tram_bytes){word.data + minus, word.size - minus}, &number) || number > INT64_MAX)
        return false;
    *ret_expires = minus ? 1 : (int64_t)number + (number && number <= MONTH ? time(NULL) : 0);
    return true;
}

static int get_keys(client *self, tram_bytes line, size_t begin) {
    size_t at = self->step ? self->step : begin;
    while (at < line.size) {
        const char *key = line.data + at, *space = memchr(key, ' ', line.size - at);
        size_t size = space ? (size_t)(space - key) : line.size - at;
        if (size && !set_key(&self->now, key, size))
            break;
        self->step = at;
        int status = size ? run(self) : 0;
        if (status)
            return status;
        at += size + 1;
    }
    self->step = 0;
    return reply(self, at < line.size ? "CLIENT_ERROR bad command line format" : "END");
}

static item *new_item(const command *it, uint32_t flags, tram_bytes data) {
    item *new = malloc(sizeof *new + it->key_size);
    tram_buffer *value = tram_buffer_copy(data.data, data.size);
    if (!new || !value) {
        tram_buffer_release(value);
        free(new);
        return NULL;
    }
    *new = (item){.value = value, .hash = it->hash, .expires = it->expires, .flags = flags, .key_size = it->key_size};
    memcpy(new->key, it->key, it->key_size);
    return new;
}

/* set KEY FLAGS TIME BYTES [CAS] [noreply], and the value. -EAGAIN: it is not there yet. */
static int begin_store(client *self, const tram_bytes *words) {
    command *it = &self->now;
    uint64_t flags, size;
    tram_bytes data;
    bool good = set_key(it, words[1].data, words[1].size) && parse_number(words[2], &flags) && flags <= UINT32_MAX &&
                time_of(words[3], &it->expires) && parse_number(words[4], &size) && size <= SIZE_MAX - 2 &&
                (it->verb != 'C' || parse_number(words[5], &it->number));
    if (!good)
        return reply(self, "CLIENT_ERROR bad command line format");
    if (size > VALUE_MAX) {
        self->skip = (size_t)size + 2;
        return reply(self, "SERVER_ERROR object too large for cache");
    }
    int status = tram_input_take(&self->input, (size_t)size + 2, &data);
    if (status)
        return status;
    if (memcmp(data.data + size, "\r\n", 2) != 0)
        return reply(self, "CLIENT_ERROR bad data chunk");
    if (!self->is_back && !(it->stored = new_item(it, (uint32_t)flags, data)))
        return reply(self, "SERVER_ERROR out of memory storing object");
    return run(self);
}

/* delete KEY, incr KEY NUMBER, touch KEY TIME; each with noreply. */
static int begin_change(client *self, const tram_bytes *words) {
    command *it = &self->now;
    if (!set_key(it, words[1].data, words[1].size))
        return reply(self, "CLIENT_ERROR bad command line format");
    if ((it->verb == 'i' || it->verb == 'e') && !parse_number(words[2], &it->number))
        return reply(self, "CLIENT_ERROR invalid numeric delta argument");
    if (it->verb == 't' && !time_of(words[2], &it->expires))
        return reply(self, "CLIENT_ERROR invalid exptime argument");
    return run(self);
}

static int begin(client *self, tram_bytes line) {
    tram_bytes words[WORDS_MAX] = {{"", 0}};
    size_t count = split(line, words);
    const char *verb = verb_of(words[0]);
    size_t least = *verb ? (size_t)(verb[1] - '0') : WORDS_MAX + 1, most = *verb ? (size_t)(verb[2] - '0') : 0;
    self->now.verb = *verb;
    bool gets = is_get(&self->now);
    self->now.noreply = !gets && count > least && count <= most && is(words[count - 1], "noreply");
    if (count < least || count > most)
        return reply(self, "ERROR");
    if (gets)
        return get_keys(self, line, (size_t)(words[1].data - line.data));
    if (isupper(*verb))
        return begin_store(self, words);
    if (*verb == 'f' || *verb == 's')
        return run_everywhere(self);
    if (*verb == 'o' && !parse_number(words[1], &self->now.number))
        return reply(self, "CLIENT_ERROR bad command line format");
    if (*verb == 'v' || *verb == 'o')
        return reply(self, *verb == 'v' ? "VERSION " TRAM_VERSION_STRING : "OK");
    if (*verb == 'q')
        tram_output_send(&self->output); /* before the close */
    return *verb == 'q' ? tram_transport_close(self->base.transport) : begin_change(self, words);
}

static int take(client *self, tram_input *input) {
    tram_bytes bytes;
    int status;
    if (self->skip) {
        status = tram_input_some(input, self->skip, &bytes);
        self->skip -= status ? 0 : bytes.size;
        return status;
    }
    tram_input_mark(input);
    status = tram_input_line(input, &bytes);
    if (!status)
        status = begin(self, bytes);
    if (status == -EAGAIN)
        tram_input_rewind(input);
    return status;
}

static int parse(tram_protocol *protocol, tram_input *input) {
    client *self = (client *)protocol;
    int status;
    tram_output_begin(&self->output, protocol->transport);
    while (!(status = take(self, input)))
        if (tram_output_size(&self->output) >= COMMAND_MAX)
            tram_output_send(&self->output); /* and if the client does not read, the next take() says -EAGAIN */
    tram_output_send(&self->output);
    return status;
}

static void client_released(tram_protocol *protocol) {
    client_drop(protocol);
}

static const tram_protocol_ops client_ops = {
    .data_received = tram_input_data_received,
    .eof_received = tram_input_eof_received,
    .pause_writing = tram_input_pause_writing,
    .resume_writing = tram_input_resume_writing,
    .closing = tram_input_closing,
    .released = client_released,
};

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    client *self = calloc(1, sizeof *self);
    if (!self)
        return -ENOMEM;
    self->base.ops = &client_ops;
    self->users = 1;
    self->own = (shard *)tram_loop_state(loop);
    tram_input_options options = {
        .limit = COMMAND_MAX + VALUE_MAX, .loop = loop, .protocol = &self->base, .parse = parse};
    *ret_protocol = &self->base;
    return tram_input_init(&self->input, &options);
}

/* ---- Workers ---- */

static int worker_start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)arg;
    shard *own = *state = &shards[worker];
    unsigned count = tram_runtime_worker_count(runtime);
    uint64_t limit = (strtoull(memory_mib, NULL, 10) << 20) / count;
    *own = (shard){.loop = loop, .bucket_count = 1024, .count = count, .counts[LIMIT] = limit};
    TAILQ_INIT(&own->order);
    own->buckets = calloc(own->bucket_count, sizeof *own->buckets);
    return own->buckets ? 0 : -ENOMEM;
}

static int worker_stop(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)loop, (void)arg;
    shard *own = *state;
    flush(own);
    free(own->buckets);
    return 0;
}

int main(int argc, char **argv) {
    static const tram_serve_argument arguments[] = {{"--memory", "MIB", "of values in all (64)", &memory_mib}, {0}};
    tram_runtime_options runtime = {.start = worker_start, .stop = worker_stop};
    tram_serve_options options = {.name = "cache-server",
                                  .summary = "a cache in the memcached text protocol",
                                  .port = "11211",
                                  .arguments = arguments,
                                  .runtime = &runtime};
    return tram_serve_main(argc, argv, client_factory, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
}
