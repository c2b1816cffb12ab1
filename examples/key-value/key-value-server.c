/*
 * A key-value server that speaks enough of the Redis protocol for redis-cli and redis-benchmark, on all cores.
 *
 *     key-value-server [--host 127.0.0.1] [--port 6379] [--workers N]
 *
 * Keys are spread over the workers by their hash. Each worker has an actor, its store, which has a part of them.
 * A command for a key of the worker's own is done at once. One for another's goes as a message to that worker's store
 * and comes back as a message to the connection: so no lock is held, and nothing shared. Answers go out in the order
 * of the commands, whichever worker they come from. A connection that ends meanwhile drops what comes back.
 *
 * GET SET DEL EXISTS INCR DECR MGET MSET EXPIRE TTL DBSIZE FLUSHALL PING ECHO INFO COMMAND QUIT. Commands of several
 * keys are one command for each key; others may come in between.
 */
#include <getopt.h>
#include <strings.h>

#include <tram/tram.h>

#include "resp.h"
#include "store.h"

#define PENDING_MAX 4096 /* commands of one connection that wait; then it is not read */

/* ---- What is done with a key ---- */

enum action { GET, SET, DEL, EXISTS, ADD, EXPIRE, TTL, DBSIZE, FLUSHALL };
enum condition { ALWAYS, IF_NEW, IF_THERE };

struct command {
    enum action action;
    struct word key, value;
    uint64_t hash;
    int64_t number;      /* ADD: how much; EXPIRE: in how many ms; SET: expires in so many, or 0 */
    enum condition only; /* SET */
};

/*
 * A command that waits for its turn to be answered, in a connection's list. One of several keys has an answer for each
 * of its parts, which become one when all are there.
 */
struct pending {
    struct pending *next;
    struct text answer;
    struct text after; /* answers that come behind it, and were there before */
    enum kind { ONE, ARRAY, SUM, ALL_OK } kind;
    size_t parts_left; /* 0: it is answered */
    size_t part_count;
    struct text *parts;
};

static void pending_free(struct pending *pending) {
    for (size_t i = 0; i < pending->part_count && pending->parts; i++)
        text_free(&pending->parts[i]);
    free(pending->parts);
    text_free(&pending->answer);
    text_free(&pending->after);
    free(pending);
}

/* A command on its way to another worker, and its answer on the way back. */
struct operation {
    tram_address from;       /* the connection, whose … */
    struct pending *pending; /* … this is, as long as it is there; … */
    size_t part;             /* … and this the part of it */
    struct command command;  /* what it refers to is in `bytes` */
    struct text answer;
    char bytes[];
};

static void operation_free(struct operation *operation) {
    text_free(&operation->answer);
    free(operation);
}

/* The connection has gone, or the worker. */
static void operation_dropped(tram_message *message) {
    operation_free(message->data);
}

static const tram_message_type operation_message = {.name = "operation", .dropped = operation_dropped};

/* ---- A worker ---- */

struct worker {
    tram_actor actor; /* the store, as others know it */
    unsigned number;
    struct store store;
    struct words words; /* of the request that is being read */
    struct text out;    /* answers that are written together */
    uint64_t connections, commands;
};

static struct {
    unsigned count;
    struct worker *workers;
    tram_address *stores; /* constant once the workers run */
} all;

static unsigned owner_of(uint64_t hash) {
    return (unsigned)((hash >> 32) * all.count >> 32);
}

/* ---- Commands on a store ---- */

static void do_set(struct store *store, const struct command *command, struct text *answer) {
    bool there =
        command->only != ALWAYS && store_find(store, command->key.bytes, command->key.size, command->hash) != NULL;
    if (command->only != ALWAYS && there != (command->only == IF_THERE)) {
        add_nil(answer);
        return;
    }
    struct entry *entry = store_set(store, command->key.bytes, command->key.size, command->hash, command->value.bytes,
                                    command->value.size);
    if (!entry) {
        add_text(answer, "-ERR out of memory\r\n");
        return;
    }
    entry->expires_ms = command->number ? now_ms() + (uint64_t)command->number : 0;
    add_ok(answer);
}

static void do_add(struct store *store, const struct command *command, struct entry *entry, struct text *answer) {
    int64_t number = 0;
    char text[24];
    if (entry && !read_number(value_of(entry), entry->value_size, &number)) {
        add_text(answer, "-ERR value is not an integer or out of range\r\n");
        return;
    }
    if (__builtin_add_overflow(number, command->number, &number)) {
        add_text(answer, "-ERR increment or decrement would overflow\r\n");
        return;
    }
    int size = snprintf(text, sizeof text, "%lld", (long long)number);
    if (!store_set(store, command->key.bytes, command->key.size, command->hash, text, (size_t)size))
        add_text(answer, "-ERR out of memory\r\n");
    else
        add_number(answer, ':', number);
}

static void do_expire(struct store *store, const struct command *command, struct entry *entry, struct text *answer) {
    add_number(answer, ':', entry != NULL);
    if (entry && command->number <= 0)
        store_delete(store, entry);
    else if (entry)
        entry->expires_ms = now_ms() + (uint64_t)command->number;
}

static int64_t seconds_left(const struct entry *entry) {
    if (!entry)
        return -2;
    return entry->expires_ms ? (int64_t)((entry->expires_ms - now_ms() + 500) / 1000) : -1;
}

static void do_with_entry(struct store *store, const struct command *command, struct entry *entry,
                          struct text *answer) {
    switch (command->action) {
    case GET:
        if (entry)
            add_bulk(answer, value_of(entry), entry->value_size);
        else
            add_nil(answer);
        break;
    case DEL:
        add_number(answer, ':', entry != NULL);
        if (entry)
            store_delete(store, entry);
        break;
    case EXISTS:
        add_number(answer, ':', entry != NULL);
        break;
    case ADD:
        do_add(store, command, entry, answer);
        break;
    case EXPIRE:
        do_expire(store, command, entry, answer);
        break;
    case TTL:
        add_number(answer, ':', seconds_left(entry));
        break;
    default:
        break;
    }
}

static void execute(struct store *store, const struct command *command, struct text *answer) {
    switch (command->action) {
    case SET:
        do_set(store, command, answer);
        break;
    case DBSIZE:
        add_number(answer, ':', (int64_t)store->count);
        break;
    case FLUSHALL:
        store_free(store);
        add_ok(answer);
        break;
    default:
        do_with_entry(store, command, store_find(store, command->key.bytes, command->key.size, command->hash), answer);
        break;
    }
}

/* An operation has come to its worker: it is done and sent back. */
static int store_message(tram_actor *actor, tram_message *message) {
    struct worker *worker = (struct worker *)actor;
    struct operation *operation = message->data;
    execute(&worker->store, &operation->command, &operation->answer);
    tram_message back = {.type = &operation_message, .data = operation};
    if (tram_post(operation->from, &back) != 0)
        operation_free(operation);
    return 0;
}

static int store_sweep_some(tram_actor *actor) {
    struct worker *worker = (struct worker *)actor;
    store_sweep(&worker->store, 1024);
    return tram_actor_set_timer(actor, 100000000);
}

static int store_started(tram_actor *actor) {
    return tram_actor_set_timer(actor, 100000000);
}

static const tram_actor_ops store_ops = {
    .started = store_started, .message_received = store_message, .timed_out = store_sweep_some};

/* ---- A connection ---- */

struct connection {
    tram_protocol base;
    struct worker *worker;
    tram_address address;
    struct text in;               /* the beginning of a request whose rest has not come */
    size_t needed;                /* bytes that it has at least */
    struct pending *first, *last; /* commands that are not answered yet */
    size_t waiting;
    bool full;   /* more of them wait than may: it is not read */
    bool paused; /* the peer does not read */
    bool closing;
};

/* Where the answer of a command goes that comes now: behind the last that waits. */
static struct text *answers(struct connection *connection) {
    return connection->first ? &connection->last->after : &connection->worker->out;
}

static void out_of_memory(struct connection *connection) {
    add_text(answers(connection), "-ERR out of memory\r\n");
}

/* Joins the list; NULL: out of memory, and the client was told. */
static struct pending *pending_new(struct connection *connection, size_t parts) {
    struct pending *pending = calloc(1, sizeof *pending);
    if (pending && parts > 1)
        pending->parts = calloc(parts, sizeof *pending->parts);
    if (!pending || (parts > 1 && !pending->parts)) {
        free(pending);
        out_of_memory(connection);
        return NULL;
    }
    pending->parts_left = pending->part_count = parts;
    if (connection->first)
        connection->last->next = pending;
    else
        connection->first = pending;
    connection->last = pending;
    connection->waiting++;
    return pending;
}

/* The answer whose parts are all there. */
static void gather(struct pending *pending) {
    struct text *answer = &pending->answer;
    int64_t sum = 0, number;
    if (pending->kind == ARRAY)
        add_number(answer, '*', (int64_t)pending->part_count);
    for (size_t i = 0; i < pending->part_count; i++) {
        const struct text *part = &pending->parts[i];
        answer->failed |= part->failed;
        if (pending->kind == ARRAY || part->size < 4 || part->bytes[0] == '-')
            text_add(answer, part->bytes, part->size);
        if (pending->kind != ARRAY && answer->size)
            return; /* the first error */
        if (pending->kind == SUM && part->size >= 4 && read_number(part->bytes + 1, part->size - 3, &number))
            sum += number;
    }
    if (pending->kind == SUM)
        add_number(answer, ':', sum);
    else if (pending->kind == ALL_OK)
        add_ok(answer);
}

static struct text *part_of(struct pending *pending, size_t part) {
    return pending->parts ? &pending->parts[part] : &pending->answer;
}

static void part_done(struct pending *pending) {
    if (--pending->parts_left == 0 && pending->parts)
        gather(pending);
}

/* Sends a command to the worker that has the key. */
static void send_away(struct connection *connection, unsigned owner, const struct command *command,
                      struct pending *pending, size_t part) {
    size_t key = command->key.size, value = command->value.size;
    struct operation *operation = malloc(sizeof *operation + key + value);
    if (operation) {
        *operation = (struct operation){connection->address, pending, part, *command, {0}};
        if (key)
            memcpy(operation->bytes, command->key.bytes, key);
        if (value)
            memcpy(operation->bytes + key, command->value.bytes, value);
        operation->command.key.bytes = operation->bytes;
        operation->command.value.bytes = operation->bytes + key;
        tram_message message = {.type = &operation_message, .data = operation};
        if (tram_post(all.stores[owner], &message) == 0)
            return;
        operation_free(operation);
    }
    add_text(part_of(pending, part), "-ERR the worker of this key cannot be reached\r\n");
    part_done(pending);
}

/* A command of one key: here, or at the worker that has it. */
static void run_one(struct connection *connection, struct command *command) {
    command->hash = hash_of(command->key.bytes, command->key.size);
    unsigned owner = owner_of(command->hash);
    if (owner == connection->worker->number) {
        execute(&connection->worker->store, command, answers(connection));
        return;
    }
    struct pending *pending = pending_new(connection, 1);
    if (pending)
        send_away(connection, owner, command, pending, 0);
}

/* The words from `first` on, `stride` apart, are keys; or, without a stride, each worker does it once. */
static void run_many(struct connection *connection, enum action action, const struct words *words, size_t first,
                     size_t stride, enum kind kind) {
    size_t count = stride ? (words->count - first) / stride : all.count;
    struct command command = {.action = action};
    struct pending *pending = pending_new(connection, count);
    if (!pending)
        return;
    pending->kind = kind;
    if (!pending->parts && kind == ARRAY)
        add_text(&pending->answer, "*1\r\n");
    for (size_t i = 0; i < count; i++) {
        unsigned owner = (unsigned)i;
        if (stride) {
            command.key = words->word[first + i * stride];
            command.hash = hash_of(command.key.bytes, command.key.size);
            owner = owner_of(command.hash);
        }
        if (stride == 2)
            command.value = words->word[first + i * 2 + 1];
        if (owner != connection->worker->number) {
            send_away(connection, owner, &command, pending, i);
            continue;
        }
        execute(&connection->worker->store, &command, part_of(pending, i));
        part_done(pending);
    }
}

/* ---- The commands ---- */

static bool same(const struct word *word, const char *text) {
    return word->size == strlen(text) && strncasecmp(word->bytes, text, word->size) == 0;
}

static void syntax_error(struct connection *connection) {
    add_text(answers(connection), "-ERR syntax error\r\n");
}

static void not_a_number(struct connection *connection) {
    add_text(answers(connection), "-ERR value is not an integer or out of range\r\n");
}

/* Milliseconds, of seconds where `unit` is 1000. False: they are none. */
static bool read_time(const struct word *word, int64_t unit, int64_t *ret_ms) {
    int64_t number;
    return read_number(word->bytes, word->size, &number) && !__builtin_mul_overflow(number, unit, ret_ms) &&
           *ret_ms < INT64_MAX / 2 && *ret_ms > INT64_MIN / 2;
}

static void get(struct connection *connection, const struct words *words) {
    run_one(connection, &(struct command){.action = GET, .key = words->word[1]});
}

static void set(struct connection *connection, const struct words *words) {
    struct command command = {.action = SET, .key = words->word[1], .value = words->word[2]};
    for (size_t i = 3; i < words->count; i++) {
        const struct word *word = &words->word[i];
        bool ex = same(word, "EX"), timed = ex || same(word, "PX");
        if (timed && i + 1 < words->count && !command.number) {
            if (!read_time(&words->word[++i], ex ? 1000 : 1, &command.number)) {
                not_a_number(connection);
                return;
            }
            if (command.number <= 0) {
                add_text(answers(connection), "-ERR invalid expire time in 'set' command\r\n");
                return;
            }
        } else if (same(word, "NX") && command.only == ALWAYS) {
            command.only = IF_NEW;
        } else if (same(word, "XX") && command.only == ALWAYS) {
            command.only = IF_THERE;
        } else {
            syntax_error(connection);
            return;
        }
    }
    run_one(connection, &command);
}

static void del(struct connection *connection, const struct words *words) {
    if (words->count == 2)
        run_one(connection, &(struct command){.action = DEL, .key = words->word[1]});
    else
        run_many(connection, DEL, words, 1, 1, SUM);
}

static void exists(struct connection *connection, const struct words *words) {
    if (words->count == 2)
        run_one(connection, &(struct command){.action = EXISTS, .key = words->word[1]});
    else
        run_many(connection, EXISTS, words, 1, 1, SUM);
}

static void incr(struct connection *connection, const struct words *words) {
    run_one(connection, &(struct command){.action = ADD, .key = words->word[1], .number = 1});
}

static void decr(struct connection *connection, const struct words *words) {
    run_one(connection, &(struct command){.action = ADD, .key = words->word[1], .number = -1});
}

static void mget(struct connection *connection, const struct words *words) {
    run_many(connection, GET, words, 1, 1, ARRAY);
}

static void mset(struct connection *connection, const struct words *words) {
    if (words->count % 2 == 0)
        add_text(answers(connection), "-ERR wrong number of arguments for 'mset' command\r\n");
    else
        run_many(connection, SET, words, 1, 2, ALL_OK);
}

static void expire(struct connection *connection, const struct words *words) {
    struct command command = {.action = EXPIRE, .key = words->word[1]};
    if (read_time(&words->word[2], 1000, &command.number))
        run_one(connection, &command);
    else
        not_a_number(connection);
}

static void ttl(struct connection *connection, const struct words *words) {
    run_one(connection, &(struct command){.action = TTL, .key = words->word[1]});
}

static void dbsize(struct connection *connection, const struct words *words) {
    run_many(connection, DBSIZE, words, 0, 0, SUM);
}

static void flushall(struct connection *connection, const struct words *words) {
    run_many(connection, FLUSHALL, words, 0, 0, ALL_OK);
}

static void ping(struct connection *connection, const struct words *words) {
    if (words->count == 2)
        add_bulk(answers(connection), words->word[1].bytes, words->word[1].size);
    else
        add_text(answers(connection), "+PONG\r\n");
}

static void echo(struct connection *connection, const struct words *words) {
    add_bulk(answers(connection), words->word[1].bytes, words->word[1].size);
}

static void info(struct connection *connection, const struct words *words) {
    (void)words;
    char text[256];
    const struct worker *worker = connection->worker;
    int size = snprintf(text, sizeof text,
                        "# Server\r\nserver_name:key-value-server\r\nworkers:%u\r\n# This worker\r\nworker:%u\r\n"
                        "connected_clients:%llu\r\ntotal_commands_processed:%llu\r\nkeys:%zu\r\n",
                        all.count, worker->number, (unsigned long long)worker->connections,
                        (unsigned long long)worker->commands, worker->store.count);
    add_bulk(answers(connection), text, (size_t)size);
}

static void command(struct connection *connection, const struct words *words);

static void quit(struct connection *connection, const struct words *words) {
    (void)words;
    add_ok(answers(connection));
    connection->closing = true;
}

static const struct verb {
    const char *name;
    size_t least, most; /* words; 0: any number */
    void (*run)(struct connection *connection, const struct words *words);
} verbs[] = {
    {"get", 2, 2, get},       {"set", 3, 0, set},           {"del", 2, 0, del},   {"exists", 2, 0, exists},
    {"incr", 2, 2, incr},     {"decr", 2, 2, decr},         {"mget", 2, 0, mget}, {"mset", 3, 0, mset},
    {"expire", 3, 3, expire}, {"ttl", 2, 2, ttl},           {"ping", 1, 2, ping}, {"echo", 2, 2, echo},
    {"dbsize", 1, 1, dbsize}, {"flushall", 1, 2, flushall}, {"info", 1, 0, info}, {"command", 1, 0, command},
    {"quit", 1, 0, quit},
};
#define VERBS (sizeof verbs / sizeof verbs[0])

/* COMMAND, which redis-cli asks for when it starts: name and number of words of each. */
static void command(struct connection *connection, const struct words *words) {
    struct text *answer = answers(connection);
    if (words->count > 1 && same(&words->word[1], "COUNT")) {
        add_number(answer, ':', (int64_t)VERBS);
        return;
    }
    if (words->count > 1 && !same(&words->word[1], "INFO")) {
        add_text(answer, "*0\r\n");
        return;
    }
    add_number(answer, '*', (int64_t)VERBS);
    for (size_t i = 0; i < VERBS; i++) {
        add_number(answer, '*', 6);
        add_bulk(answer, verbs[i].name, strlen(verbs[i].name));
        add_number(answer, ':', verbs[i].least == verbs[i].most ? (int64_t)verbs[i].least : -(int64_t)verbs[i].least);
        add_text(answer, "*0\r\n:0\r\n:0\r\n:0\r\n");
    }
}

static void run_request(struct connection *connection, const struct words *words) {
    if (!words->count)
        return;
    connection->worker->commands++;
    const struct word *name = &words->word[0];
    for (size_t i = 0; i < VERBS; i++) {
        if (!same(name, verbs[i].name))
            continue;
        if (words->count >= verbs[i].least && (!verbs[i].most || words->count <= verbs[i].most)) {
            verbs[i].run(connection, words);
            return;
        }
        char text[96];
        snprintf(text, sizeof text, "-ERR wrong number of arguments for '%s' command\r\n", verbs[i].name);
        add_text(answers(connection), text);
        return;
    }
    char text[200];
    int shown = name->size < 128 ? (int)name->size : 128;
    snprintf(text, sizeof text, "-ERR unknown command '%.*s'\r\n", shown, name->bytes);
    for (char *at = text; *at && at < text + sizeof text; at++)
        if ((*at == '\r' || *at == '\n') && at[1] && at[2])
            *at = ' ';
    add_text(answers(connection), text);
}

/* ---- Bytes in and out ---- */

static int write_text(struct connection *connection, struct text *text) {
    int status = text->failed ? -ENOMEM : 0;
    if (!status && text->size)
        status = tram_transport_write(connection->base.transport, text->bytes, text->size);
    text->size = 0;
    text->failed = false;
    return status;
}

/* Sends the answers that are due, and reads on where few are left. */
static void flush(struct connection *connection) {
    tram_transport *transport = connection->base.transport;
    struct text *out = &connection->worker->out;
    while (connection->first && !connection->first->parts_left) {
        struct pending *pending = connection->first;
        connection->first = pending->next;
        connection->waiting--;
        out->failed |= pending->answer.failed || pending->after.failed;
        text_add(out, pending->answer.bytes, pending->answer.size);
        text_add(out, pending->after.bytes, pending->after.size);
        pending_free(pending);
    }
    if (write_text(connection, out) < 0)
        tram_transport_abort(transport);
    if (connection->closing && !connection->first)
        tram_transport_close(transport);
    if (!connection->full && connection->waiting >= PENDING_MAX) {
        connection->full = true;
        tram_transport_pause_reading(transport);
    } else if (connection->full && connection->waiting < PENDING_MAX / 2) {
        connection->full = false;
        if (!connection->paused)
            tram_transport_resume_reading(transport);
    }
}

static void protocol_error(struct connection *connection, const char *problem) {
    char text[96];
    snprintf(text, sizeof text, "-ERR Protocol error: %s\r\n", problem);
    add_text(answers(connection), text);
    connection->closing = true;
}

/* Runs the requests that are whole; how many bytes they had, or -ENOMEM. */
static ptrdiff_t run_requests(struct connection *connection, const char *data, size_t size) {
    struct words *words = &connection->worker->words;
    size_t done = 0, used;
    const char *problem;
    connection->needed = 0;
    while (done < size && !connection->closing) {
        switch (parse_request(data + done, size - done, words, &used, &problem)) {
        case PARSED:
            run_request(connection, words);
            done += used;
            break;
        case INCOMPLETE:
            connection->needed = used;
            return (ptrdiff_t)done;
        case BAD_REQUEST:
            protocol_error(connection, problem);
            break;
        case OUT_OF_MEMORY:
            return -ENOMEM;
        }
    }
    return connection->closing ? (ptrdiff_t)size : (ptrdiff_t)done;
}

static int data_received(tram_protocol *protocol, const void *data, size_t size) {
    struct connection *connection = (struct connection *)protocol;
    struct text *in = &connection->in;
    const char *bytes = data;
    if (in->size) {
        text_add(in, data, size);
        if (in->failed)
            return -ENOMEM;
        if (in->size < connection->needed)
            return 0;
        bytes = in->bytes;
        size = in->size;
    }
    ptrdiff_t used = run_requests(connection, bytes, size);
    if (used < 0)
        return (int)used;
    size_t left = size - (size_t)used;
    if (bytes == in->bytes) {
        memmove(in->bytes, in->bytes + used, left);
        in->size = left;
        if (!left && in->capacity > 65536)
            text_free(in);
    } else if (left) {
        text_add(in, bytes + used, left);
    }
    flush(connection);
    return in->failed ? -ENOMEM : 0;
}

/* An operation is back. */
static int message_received(tram_protocol *protocol, tram_message *message) {
    struct connection *connection = (struct connection *)protocol;
    struct operation *operation = message->data;
    struct pending *pending = operation->pending;
    struct text *answer = part_of(pending, operation->part);
    answer->failed |= operation->answer.failed;
    text_add(answer, operation->answer.bytes, operation->answer.size);
    operation_free(operation);
    part_done(pending);
    if (!connection->first->parts_left)
        flush(connection);
    return 0;
}

static int pause_writing(tram_protocol *protocol) {
    ((struct connection *)protocol)->paused = true;
    return tram_transport_pause_reading(protocol->transport);
}

static int resume_writing(tram_protocol *protocol) {
    struct connection *connection = (struct connection *)protocol;
    connection->paused = false;
    return connection->full ? 0 : tram_transport_resume_reading(protocol->transport);
}

static int connection_made(tram_protocol *protocol, tram_transport *transport) {
    struct connection *connection = (struct connection *)protocol;
    connection->worker->connections++;
    return all.count > 1 ? tram_transport_address(transport, &connection->address) : 0;
}

static int connection_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    ((struct connection *)protocol)->worker->connections--;
    return 0;
}

/* Operations that are on their way are dropped, and freed, when they come. */
static void released(tram_protocol *protocol) {
    struct connection *connection = (struct connection *)protocol;
    for (struct pending *pending = connection->first, *next; pending; pending = next) {
        next = pending->next;
        pending_free(pending);
    }
    text_free(&connection->in);
    free(connection);
}

static const tram_protocol_ops connection_ops = {
    .connection_made = connection_made,
    .data_received = data_received,
    .message_received = message_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = connection_lost,
    .released = released,
};

static int make_connection(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return -ENOMEM;
    connection->base.ops = &connection_ops;
    for (unsigned i = 0; i < all.count; i++)
        if (all.workers[i].actor.loop == loop)
            connection->worker = &all.workers[i];
    *ret_protocol = &connection->base;
    return 0;
}

/* ---- Beginning and end ---- */

static int start_worker(tram_runtime *runtime, unsigned number, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)arg;
    struct worker *worker = &all.workers[number];
    *state = worker;
    worker->number = number;
    worker->actor.ops = &store_ops;
    int status = tram_loop_start_actor(loop, &worker->actor);
    return status ? status : tram_actor_address(&worker->actor, &all.stores[number]);
}

static int stop_worker(tram_runtime *runtime, unsigned number, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)number;
    (void)loop;
    (void)arg;
    struct worker *worker = *state;
    store_free(&worker->store);
    free(worker->words.word);
    text_free(&worker->out);
    return 0;
}

static int fail_with(const char *what, int status, const tram_error *error) {
    fprintf(stderr, "key-value-server: %s: %s\n", what, tram_error_describe(error, status));
    return 1;
}

static int serve(const char *host, const char *port, unsigned workers) {
    all.count = workers ? workers : tram_available_cpus().count;
    all.workers = calloc(all.count, sizeof *all.workers);
    all.stores = calloc(all.count, sizeof *all.stores);
    tram_runtime_options options = {
        .workers = all.count, .handle_signals = true, .start = start_worker, .stop = stop_worker, .name = "store"};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_error error = {0};
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    int status = all.workers && all.stores ? tram_runtime_new(&options, &runtime) : -ENOMEM;
    if (status)
        return fail_with("runtime", status, NULL);
    status = tram_runtime_create_server(runtime, make_connection, NULL, host, port, NULL, &server, &error);
    if (!status)
        status = tram_runtime_server_sockname(server, 0, &address);
    if (!status)
        status = tram_runtime_start(runtime);
    if (status)
        fail_with("server", status, error.code ? &error : NULL);
    else {
        printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
        fflush(stdout);
        tram_runtime_join(runtime);
    }
    tram_runtime_free(runtime);
    free(all.workers);
    free(all.stores);
    return status != 0;
}

int main(int count, char **arguments) {
    static const struct option options[] = {{"host", required_argument, NULL, 'h'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, '?'},
                                            {0}};
    static const char usage[] = "usage: key-value-server [--host 127.0.0.1] [--port 6379] [--workers N]\n\n"
                                "A server for redis-cli, in memory, on all cores. --port 0: a free one; it is\n"
                                "in the first line that is printed. --workers: as many as there are CPUs.\n";
    const char *host = "127.0.0.1", *port = "6379";
    int64_t workers = 0;
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        if (option == 'h')
            host = optarg;
        else if (option == 'p')
            port = optarg;
        else if (option == 'w' && read_number(optarg, strlen(optarg), &workers) && workers > 0 && workers <= 1024)
            continue;
        else {
            bool help = option == '?' && optind > 0 && strcmp(arguments[optind - 1], "--help") == 0;
            fputs(usage, help ? stdout : stderr);
            return help ? 0 : 2;
        }
    }
    if (optind < count) {
        fputs(usage, stderr);
        return 2;
    }
    return serve(host, port, (unsigned)workers);
}
