/*
 * A cache in the memcached text protocol, sharded by key over the workers: each worker owns the keys that hash to it,
 * and nobody else touches them, so there is no lock. A command for another worker's key goes to that worker's loop by
 * tram_loop_call_soon_threadsafe() and comes back with its answer. Values are shared buffers: a value that another
 * worker found is sent from where it lies.
 *
 * get, gets, set, add, replace, append, prepend, cas, delete, incr, decr, touch, flush_all, stats, version, verbosity,
 * quit; noreply; values up to 1 MiB. The oldest of a worker's values make room for new ones.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tram/tram.h>

enum {
    KEY_MAX = 250,
    VALUE_MAX = 1 << 20,
    COMMAND_MAX = 65536,
    WORDS_MAX = 8,
    SHARDS_MAX = 1024,
    MONTH = 60 * 60 * 24 * 30
};

/* ---- A worker's shard ---- */

typedef struct item {
    struct item *next; /* of its bucket */
    struct item *newer, *older;
    tram_buffer *value; /* with the CRLF behind it */
    uint64_t hash;
    uint64_t cas;
    int64_t expires; /* seconds of time(); 0: never */
    uint32_t flags;
    uint32_t key_size;
    char key[];
} item;

/* What a shard counts, and stats sums up. */
enum { ITEMS, BYTES, LIMIT, GETS_DONE, HITS, SETS, EVICTIONS, COUNTS };

static const char *const count_names[COUNTS] = {"curr_items", "bytes",   "limit_maxbytes", "cmd_get",
                                                "get_hits",   "cmd_set", "evictions"};

typedef struct shard {
    tram_loop *loop;
    item **buckets;
    size_t bucket_count; /* a power of two */
    item *newest, *oldest;
    uint64_t last_cas;
    unsigned count; /* of all shards */
    uint64_t counts[COUNTS];
} shard;

static shard *shards;
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

static item **place_of(shard *own, uint64_t hash, const char *key, size_t size) {
    item **place = &own->buckets[hash & (own->bucket_count - 1)];
    while (*place && ((*place)->hash != hash || (*place)->key_size != size || memcmp((*place)->key, key, size) != 0))
        place = &(*place)->next;
    return place;
}

static void make_newest(shard *own, item *it) {
    it->newer = NULL;
    it->older = own->newest;
    *(own->newest ? &own->newest->newer : &own->oldest) = it;
    own->newest = it;
}

static void leave_order(shard *own, item *it) {
    *(it->newer ? &it->newer->older : &own->newest) = it->older;
    *(it->older ? &it->older->newer : &own->oldest) = it->newer;
}

static void item_free(item *it) {
    tram_buffer_release(it->value);
    free(it);
}

static void unlink_item(shard *own, item **place) {
    item *it = *place;
    *place = it->next;
    leave_order(own, it);
    own->counts[ITEMS]--;
    own->counts[BYTES] -= cost(it);
    item_free(it);
}

/* The item of a key, unless its time is over. */
static item *find(shard *own, uint64_t hash, const char *key, size_t size) {
    item **place = place_of(own, hash, key, size);
    if (*place && (*place)->expires && (*place)->expires <= time(NULL))
        unlink_item(own, place);
    return *place;
}

static void grow(shard *own) {
    size_t count = own->bucket_count * 2;
    item **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return; /* longer chains will do */
    for (item *it = own->newest; it; it = it->older) {
        it->next = buckets[it->hash & (count - 1)];
        buckets[it->hash & (count - 1)] = it;
    }
    free(own->buckets);
    own->buckets = buckets;
    own->bucket_count = count;
}

/* Puts an item in the place of the one with its key, and lets the oldest go. */
static void link_item(shard *own, item *it) {
    item **place = place_of(own, it->hash, it->key, it->key_size);
    if (*place)
        unlink_item(own, place);
    if (own->counts[ITEMS] >= own->bucket_count)
        grow(own);
    it->cas = ++own->last_cas;
    it->next = own->buckets[it->hash & (own->bucket_count - 1)];
    own->buckets[it->hash & (own->bucket_count - 1)] = it;
    make_newest(own, it);
    own->counts[ITEMS]++;
    own->counts[BYTES] += cost(it);
    while (own->counts[BYTES] > own->counts[LIMIT] && own->oldest != it) {
        own->counts[EVICTIONS]++;
        unlink_item(own, place_of(own, own->oldest->hash, own->oldest->key, own->oldest->key_size));
    }
}

static void flush(shard *own) {
    while (own->oldest)
        unlink_item(own, place_of(own, own->oldest->hash, own->oldest->key, own->oldest->key_size));
}

/* ---- A command: filled in by the client's worker, carried out by the key's ---- */

/* Commands by their letter: those that store are in upper case. */
static const struct {
    const char *name;
    char letter;
} verbs[] = {{"get", 'g'},       {"gets", 'c'},    {"set", 'S'},       {"add", 'A'},    {"replace", 'R'},
             {"append", 'E'},    {"prepend", 'P'}, {"cas", 'C'},       {"delete", 'd'}, {"incr", 'i'},
             {"decr", 'e'},      {"touch", 't'},   {"flush_all", 'f'}, {"stats", 's'},  {"version", 'v'},
             {"verbosity", 'o'}, {"quit", 'q'}};

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

static bool is_store(const command *it) {
    return it->verb >= 'A' && it->verb <= 'Z';
}

static int64_t expiry(int64_t given) {
    return given == 0 ? 0 : given < 0 ? 1 : given <= MONTH ? time(NULL) + given : given;
}

static void get(shard *own, command *it) {
    item *found = find(own, it->hash, it->key, it->key_size);
    own->counts[GETS_DONE]++;
    it->value = NULL;
    if (!found)
        return;
    own->counts[HITS]++;
    leave_order(own, found);
    make_newest(own, found);
    it->value = tram_buffer_hold(found->value);
    it->flags = found->flags;
    it->cas = found->cas;
}

static void release_value(const void *data, size_t size, void *arg) {
    (void)size;
    (void)arg;
    free((void *)(uintptr_t)data);
}

/* append and prepend: the new item gets both values and what the old one had. */
static const char *extend(const item *old, item *new, bool before) {
    const item *first = before ? new : old, *second = before ? old : new;
    if (value_size(old) + value_size(new) > VALUE_MAX)
        return "SERVER_ERROR object too large for cache";
    size_t size = value_size(first) + tram_buffer_size(second->value);
    char *bytes = malloc(size);
    tram_buffer *joined = bytes ? tram_buffer_wrap(bytes, size, release_value, NULL) : NULL;
    if (!joined) {
        free(bytes);
        return "SERVER_ERROR out of memory storing object";
    }
    memcpy(bytes, tram_buffer_data(first->value), value_size(first));
    memcpy(bytes + value_size(first), tram_buffer_data(second->value), tram_buffer_size(second->value));
    tram_buffer_release(new->value);
    new->value = joined;
    new->flags = old->flags;
    new->expires = old->expires;
    return NULL;
}

static const char *store(shard *own, command *it) {
    item *old = find(own, it->hash, it->key, it->key_size);
    own->counts[SETS]++;
    if (it->verb == 'C' && !old)
        return "NOT_FOUND";
    if (it->verb == 'C' && old->cas != it->number)
        return "EXISTS";
    if ((it->verb == 'A' && old) || (!old && (it->verb == 'R' || it->verb == 'E' || it->verb == 'P')))
        return "NOT_STORED";
    const char *wrong = NULL;
    if (it->verb == 'E' || it->verb == 'P')
        wrong = extend(old, it->stored, it->verb == 'P');
    if (wrong)
        return wrong;
    link_item(own, it->stored);
    it->stored = NULL;
    return "STORED";
}

static bool parse_number(const char *text, size_t size, uint64_t *ret_number) {
    uint64_t number = 0;
    for (size_t i = 0; i < size; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (digit > 9 || number > (UINT64_MAX - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    return size != 0;
}

/* The answer is the new number, which is also the value that is found. */
static const char *count(shard *own, command *it) {
    item *found = find(own, it->hash, it->key, it->key_size);
    uint64_t number;
    char text[24];
    if (!found)
        return "NOT_FOUND";
    if (!parse_number(tram_buffer_data(found->value), value_size(found), &number))
        return "CLIENT_ERROR cannot increment or decrement non-numeric value";
    if (it->verb == 'i')
        number += it->number;
    else
        number = number > it->number ? number - it->number : 0;
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

static const char *change(shard *own, command *it) {
    item *found = find(own, it->hash, it->key, it->key_size);
    if (!found)
        return "NOT_FOUND";
    if (it->verb == 't') {
        found->expires = it->expires;
        return "TOUCHED";
    }
    unlink_item(own, place_of(own, it->hash, it->key, it->key_size));
    return "DELETED";
}

/* On the worker that owns the key. */
static void execute(shard *own, command *it) {
    it->reply = NULL;
    it->value = NULL;
    if (is_get(it))
        get(own, it);
    else if (is_store(it))
        it->reply = store(own, it);
    else if (it->verb == 'i' || it->verb == 'e')
        it->reply = count(own, it);
    else if (it->verb == 'f')
        flush(own);
    else if (it->verb == 's')
        for (size_t i = 0; i < COUNTS; i++)
            it->totals[i] += own->counts[i];
    else
        it->reply = change(own, it);
}

/* ---- Clients ---- */

typedef struct client {
    tram_protocol base;
    tram_input input;
    tram_loop *loop;
    shard *own;  /* of this client's worker */
    command now; /* one at a time; its worker has it while `away` */
    bool away;
    size_t skip; /* bytes of a value that is too large */
    char *keys;  /* of a get, the words that are left; NULL: no get */
    char *next_key;
    unsigned next_shard; /* of flush_all and stats */
    shard *target;
    int users; /* the connection and the command that is away; the last one frees */
} client;

static void client_drop(client *self) {
    if (--self->users > 0)
        return;
    tram_input_fini(&self->input);
    tram_buffer_release(self->now.value);
    if (self->now.stored)
        item_free(self->now.stored);
    free(self->keys);
    free(self);
}

static int reply(client *self, const char *text) {
    tram_output output;
    if (self->now.noreply)
        return 0;
    tram_output_begin(&output, self->base.transport);
    tram_output_text(&output, text);
    tram_output_crlf(&output);
    return tram_output_send(&output);
}

static int answer_value(client *self) {
    command *it = &self->now;
    tram_output output;
    tram_output_begin(&output, self->base.transport);
    if (is_get(it)) {
        tram_output_text(&output, "VALUE ");
        tram_output_bytes(&output, it->key, it->key_size);
        tram_output_byte(&output, ' ');
        tram_output_decimal(&output, it->flags);
        tram_output_byte(&output, ' ');
        tram_output_decimal(&output, tram_buffer_size(it->value) - 2);
        if (it->verb == 'c') {
            tram_output_byte(&output, ' ');
            tram_output_decimal(&output, it->cas);
        }
        tram_output_crlf(&output);
    }
    if (!it->noreply)
        tram_output_buffer(&output, it->value);
    tram_buffer_release(it->value);
    it->value = NULL;
    return tram_output_send(&output);
}

static int answer_stats(client *self) {
    tram_output output;
    tram_output_begin(&output, self->base.transport);
    for (size_t i = 0; i < COUNTS; i++)
        tram_output_printf(&output, "STAT %s %" PRIu64 "\r\n", count_names[i], self->now.totals[i]);
    tram_output_printf(&output, "STAT threads %u\r\nEND\r\n", self->own->count);
    return tram_output_send(&output);
}

static int answer(client *self) {
    if (self->now.stored) { /* it was not */
        item_free(self->now.stored);
        self->now.stored = NULL;
    }
    if (self->now.value)
        return answer_value(self);
    return self->now.reply ? reply(self, self->now.reply) : 0;
}

static int advance(client *self);

/* The client's worker again, where the connection may have gone meanwhile. */
static int came_back(tram_loop *loop, void *arg) {
    client *self = arg;
    (void)loop;
    self->away = false;
    tram_transport *transport = self->base.transport;
    if (transport) {
        tram_transport_cork(transport);
        int status = answer(self);
        if (!status)
            status = advance(self);
        if (status)
            tram_transport_abort(transport);
        tram_input_resume(&self->input); /* `advance` may have paused it again */
        tram_transport_uncork(transport);
    }
    client_drop(self);
    return 0;
}

/* A loop that closes: nobody waits for the answer. */
static void lost_on_the_way(void *arg) {
    client_drop(arg);
}

static int carry_out(tram_loop *loop, void *arg) {
    client *self = arg;
    (void)loop;
    execute(self->target, &self->now);
    if (tram_loop_call_soon_threadsafe(self->loop, came_back, self, lost_on_the_way))
        lost_on_the_way(self);
    return 0;
}

/* The command goes to a shard, here or elsewhere; the answer is sent where that is here. */
static int run_at(client *self, shard *target) {
    if (target == self->own) {
        execute(target, &self->now);
        return answer(self);
    }
    self->target = target;
    self->away = true;
    self->users++;
    int status = tram_loop_call_soon_threadsafe(target->loop, carry_out, self, lost_on_the_way);
    if (!status) {
        tram_input_pause(&self->input);
        return 0;
    }
    self->away = false;
    self->users--;
    return status;
}

static bool set_key(command *it, const char *key, size_t size) {
    if (!size || size > KEY_MAX)
        return false;
    memcpy(it->key, key, size);
    it->key_size = (uint32_t)size;
    it->hash = hash_key(key, size);
    return true;
}

static shard *shard_of(const client *self) {
    return &shards[(self->now.hash >> 40) % self->own->count];
}

/* Goes on with a command of several steps: a get of many keys, what all shards are asked. */
static int advance(client *self) {
    int status = 0;
    while (!status && !self->away && self->keys) {
        char *key = self->next_key + strspn(self->next_key, " ");
        size_t size = strcspn(key, " ");
        self->next_key = key + size;
        bool ends = !size, bad = !ends && !set_key(&self->now, key, size);
        if (ends || bad) {
            free(self->keys);
            self->keys = NULL;
            return reply(self, bad ? "CLIENT_ERROR bad command line format" : "END");
        }
        status = run_at(self, shard_of(self));
    }
    while (!status && !self->away && self->next_shard < self->own->count) {
        status = run_at(self, &shards[self->next_shard++]);
        if (self->next_shard == self->own->count && !self->away)
            break;
    }
    if (status || self->away || self->next_shard != self->own->count)
        return status;
    self->next_shard = UINT32_MAX;
    return self->now.verb == 's' ? answer_stats(self) : reply(self, "OK");
}

/* ---- Parsing ---- */

typedef struct words {
    tram_bytes at[WORDS_MAX];
    size_t count;
} words;

static words split(tram_bytes line) {
    words result = {.count = 0};
    for (size_t i = 0; i < line.size && result.count < WORDS_MAX;) {
        size_t begin = i;
        while (i < line.size && line.data[i] != ' ')
            i++;
        if (i > begin)
            result.at[result.count++] = (tram_bytes){line.data + begin, i - begin};
        i++;
    }
    return result;
}

static bool is(tram_bytes word, const char *text) {
    return word.size == strlen(text) && memcmp(word.data, text, word.size) == 0;
}

static char verb_of(tram_bytes word) {
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (is(word, verbs[i].name))
            return verbs[i].letter;
    return 0;
}

static bool word_number(const words *line, size_t index, uint64_t *ret_number) {
    return index < line->count && parse_number(line->at[index].data, line->at[index].size, ret_number);
}

static bool word_time(const words *line, size_t index, int64_t *ret_expires) {
    if (index >= line->count)
        return false;
    tram_bytes word = line->at[index];
    bool minus = word.size > 1 && *word.data == '-';
    uint64_t number;
    if (!parse_number(word.data + minus, word.size - minus, &number) || number > INT64_MAX)
        return false;
    *ret_expires = expiry(minus ? -1 : (int64_t)number);
    return true;
}

static int begin_get(client *self, tram_bytes line, const words *parts) {
    if (parts->count < 2)
        return reply(self, "ERROR");
    self->keys = malloc(line.size + 1);
    if (!self->keys)
        return -ENOMEM;
    memcpy(self->keys, line.data, line.size);
    self->keys[line.size] = '\0';
    self->next_key = self->keys + (parts->at[1].data - line.data);
    return advance(self);
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
static int begin_store(client *self, const words *line) {
    command *it = &self->now;
    uint64_t flags, size;
    tram_bytes data;
    size_t needed = it->verb == 'C' ? 6 : 5;
    bool good = line->count >= needed && line->count <= needed + 1 && set_key(it, line->at[1].data, line->at[1].size) &&
                word_number(line, 2, &flags) && flags <= UINT32_MAX && word_time(line, 3, &it->expires) &&
                word_number(line, 4, &size) && (it->verb != 'C' || word_number(line, 5, &it->number));
    if (!good)
        return reply(self, "CLIENT_ERROR bad command line format");
    it->noreply = line->count > needed && is(line->at[needed], "noreply");
    if (size > VALUE_MAX) {
        if (size > SIZE_MAX - 2)
            return TRAM_ELIMIT;
        self->skip = (size_t)size + 2;
        return reply(self, "SERVER_ERROR object too large for cache");
    }
    int status = tram_input_take(&self->input, (size_t)size + 2, &data);
    if (status)
        return status;
    if (memcmp(data.data + size, "\r\n", 2) != 0)
        return reply(self, "CLIENT_ERROR bad data chunk");
    it->stored = new_item(it, (uint32_t)flags, data);
    if (!it->stored)
        return reply(self, "SERVER_ERROR out of memory storing object");
    return run_at(self, shard_of(self));
}

/* delete KEY, incr KEY NUMBER, touch KEY TIME; each with noreply. */
static int begin_change(client *self, const words *line) {
    command *it = &self->now;
    if (line->count < 2 || !set_key(it, line->at[1].data, line->at[1].size))
        return reply(self, "CLIENT_ERROR bad command line format");
    if ((it->verb == 'i' || it->verb == 'e') && !word_number(line, 2, &it->number))
        return reply(self, "CLIENT_ERROR invalid numeric delta argument");
    if (it->verb == 't' && !word_time(line, 2, &it->expires))
        return reply(self, "CLIENT_ERROR invalid exptime argument");
    return run_at(self, shard_of(self));
}

static int begin(client *self, tram_bytes line) {
    words parts = split(line);
    tram_bytes first = parts.count ? parts.at[0] : (tram_bytes){"", 0};
    self->now.verb = verb_of(first);
    self->now.noreply = parts.count > 1 && is(parts.at[parts.count - 1], "noreply");
    if (is_get(&self->now)) {
        self->now.noreply = false;
        return begin_get(self, line, &parts);
    }
    if (is_store(&self->now))
        return begin_store(self, &parts);
    if (self->now.verb == 'f' || self->now.verb == 's') {
        memset(self->now.totals, 0, sizeof self->now.totals);
        self->next_shard = 0;
        return advance(self);
    }
    switch (self->now.verb) {
    case 'v':
        return reply(self, "VERSION " TRAM_VERSION_STRING);
    case 'o':
        return reply(self, "OK");
    case 'q':
        return tram_transport_close(self->base.transport);
    case 0:
        return reply(self, "ERROR");
    default:
        return begin_change(self, &parts);
    }
}

static int parse(tram_protocol *protocol, tram_input *input) {
    client *self = (client *)protocol;
    tram_bytes line, skipped;
    int status;
    for (;;) {
        while (self->skip) {
            status = tram_input_some(input, self->skip, &skipped);
            if (status)
                return status;
            self->skip -= skipped.size;
        }
        tram_input_mark(input);
        status = tram_input_line(input, &line);
        if (!status)
            status = begin(self, line);
        if (status == -EAGAIN)
            tram_input_rewind(input);
        if (status)
            return status;
    }
}

static int client_received(tram_protocol *protocol, const void *data, size_t size) {
    tram_transport *transport = protocol->transport;
    tram_transport_cork(transport); /* the answers to all that came leave together */
    int status = tram_input_feed(&((client *)protocol)->input, data, size);
    tram_transport_uncork(transport);
    return status;
}

static void client_released(tram_protocol *protocol) {
    client_drop((client *)protocol);
}

static const tram_protocol_ops client_ops = {
    .data_received = client_received,
    .eof_received = tram_input_eof_received,
    .pause_writing = tram_input_pause_writing,
    .resume_writing = tram_input_resume_writing,
    .released = client_released,
};

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    client *self = calloc(1, sizeof *self);
    if (!self)
        return -ENOMEM;
    self->base.ops = &client_ops;
    self->loop = loop;
    self->users = 1;
    self->next_shard = UINT32_MAX;
    self->own = (shard *)tram_loop_state(loop);
    tram_input_options options = {
        .limit = COMMAND_MAX + VALUE_MAX, .loop = loop, .protocol = &self->base, .parse = parse};
    *ret_protocol = &self->base;
    return tram_input_init(&self->input, &options);
}

/* ---- Workers ---- */

static int worker_start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    shard *own = &shards[worker];
    (void)arg;
    uint64_t mib = strtoull(memory_mib, NULL, 10);
    unsigned count = tram_runtime_worker_count(runtime);
    *own = (shard){.loop = loop, .bucket_count = 1024, .count = count, .counts[LIMIT] = (mib << 20) / count};
    own->buckets = calloc(own->bucket_count, sizeof *own->buckets);
    *state = own;
    return own->buckets ? 0 : -ENOMEM;
}

static int worker_stop(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)worker;
    (void)loop;
    (void)arg;
    shard *own = *state;
    flush(own);
    free(own->buckets);
    own->buckets = NULL;
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
    shards = calloc(SHARDS_MAX, sizeof *shards);
    if (!shards)
        return EXIT_FAILURE;
    int status = tram_serve_main(argc, argv, client_factory, NULL, &options);
    free(shards);
    return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
