/*
 * Trees of supervisors as tests/checks/supervisors.py describes them, one command a line: they are built, actors of
 * them end, and after each step it is printed who runs and how often each was started. supervisors.escript is the same
 * over Erlang's supervisors.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { NODES = 64, FAILURES = 8 };

struct node {
    bool supervisor;
    int parent;
    char restart, strategy;
    int intensity;
    int fails[FAILURES], fail_count; /* these of its starts */
    int starts;
    tram_actor *actor; /* NULL: does not run; kept by look() */
};

static struct node nodes[NODES];
static int node_count;
static tram_loop *loop;
static tram_actor *root;

static void check(int status) {
    if (status == 0)
        return;
    fprintf(stderr, "supervisors: %s\n", tram_error_name(status));
    exit(1);
}

/* ---- Starting ---- */

static int nothing(tram_actor *actor, tram_message *message) {
    (void)actor, (void)message;
    return 0;
}

static void free_worker(tram_actor *actor, int reason) {
    (void)reason;
    free(actor);
}

static const tram_actor_ops worker_ops = {.message_received = nothing, .stopped = free_worker};

static int start_worker(tram_actor **ret_actor) {
    tram_actor *actor = calloc(1, sizeof *actor);
    actor->ops = &worker_ops;
    *ret_actor = actor;
    return tram_loop_start_actor(loop, actor);
}

static int start_node(tram_loop *on, void *arg, tram_actor **ret_actor);

static tram_restart restart_of(char letter) {
    return letter == 'p' ? TRAM_RESTART_PERMANENT : letter == 't' ? TRAM_RESTART_TRANSIENT : TRAM_RESTART_TEMPORARY;
}

static int start_supervisor(struct node *node, tram_actor **ret_actor) {
    tram_child children[NODES] = {{0}};
    tram_supervisor_options options = {
        .strategy = node->strategy == 'a' ? TRAM_ONE_FOR_ALL : TRAM_ONE_FOR_ONE,
        .children = children,
        .max_restarts = node->intensity ? node->intensity : -1,
        .period_ns = UINT64_C(3600000000000),
    };
    for (int i = 0; i < node_count; i++)
        if (nodes[i].parent == node - nodes)
            children[options.child_count++] =
                (tram_child){.start = start_node, .arg = &nodes[i], .restart = restart_of(nodes[i].restart)};
    return tram_supervisor_start(loop, &options, ret_actor);
}

static int start_node(tram_loop *on, void *arg, tram_actor **ret_actor) {
    struct node *node = arg;
    (void)on;
    node->starts++;
    for (int i = 0; i < node->fail_count; i++)
        if (node->fails[i] == node->starts)
            return -EIO;
    return node->supervisor ? start_supervisor(node, ret_actor) : start_worker(ret_actor);
}

/* ---- The root is monitored ---- */

static int root_ended(tram_actor *actor, tram_address who, int reason) {
    (void)actor, (void)who, (void)reason;
    root = NULL;
    return 0;
}

static const tram_actor_ops observer_ops = {.actor_ended = root_ended};
static tram_actor observer = {.ops = &observer_ops};

static void start_root(void) {
    tram_address address;
    root = NULL;
    if (start_node(loop, &nodes[0], &root) < 0)
        return;
    check(tram_actor_address(root, &address));
    check(tram_actor_monitor(&observer, address));
}

/* ---- Looking ---- */

static void run_to_rest(void) {
    uint64_t timeout_ns;
    do {
        tram_loop_dispatch(loop);
        check(tram_loop_prepare(loop, &timeout_ns));
    } while (timeout_ns == 0);
}

static void look_below(int parent, tram_actor *actor) {
    nodes[parent].actor = actor;
    size_t number = 0;
    for (int i = 0; i < node_count && nodes[parent].supervisor; i++) {
        if (nodes[i].parent != parent || i == parent)
            continue;
        tram_actor *child = tram_supervisor_child(actor, number++);
        if (child)
            look_below(i, child);
    }
}

static void look(void) {
    run_to_rest();
    for (int i = 0; i < node_count; i++)
        nodes[i].actor = NULL;
    if (root)
        look_below(0, root);
}

static void show(void) {
    look();
    for (int i = 0; i < node_count; i++)
        printf("%s%c%d", i ? " " : "", nodes[i].actor ? '+' : '-', nodes[i].starts);
    printf("\n");
}

/* ---- Commands ---- */

static void end_node(int number, char reason) {
    tram_actor *actor = nodes[number].actor;
    if (actor)
        check(tram_actor_stop(actor, reason == 'n' ? 0 : reason == 's' ? TRAM_ECANCELLED : -EPROTO));
    show();
}

static void end_tree(void) {
    if (root)
        check(tram_actor_stop(root, TRAM_ECANCELLED));
    run_to_rest();
}

static void obey(const char *line) {
    int number, parent, at;
    char restart, strategy;
    struct node node = {0};
    if (sscanf(line, "tree %d", &number) == 1) {
        memset(nodes, 0, sizeof nodes);
        node_count = 0;
        printf("tree %d\n", number);
    } else if (sscanf(line, "s %d %c %c %d", &parent, &restart, &strategy, &number) == 4) {
        node = (struct node){
            .supervisor = true, .parent = parent, .restart = restart, .strategy = strategy, .intensity = number};
        nodes[node_count++] = node;
    } else if (sscanf(line, "w %d %c", &parent, &restart) == 2) {
        nodes[node_count++] = (struct node){.parent = parent, .restart = restart};
    } else if (sscanf(line, "f %d %d", &at, &number) == 2) {
        nodes[at].fails[nodes[at].fail_count++] = number;
    } else if (strncmp(line, "go", 2) == 0) {
        start_root();
        show();
    } else if (sscanf(line, "k %d %c", &number, &restart) == 2) {
        end_node(number, restart);
    } else if (strncmp(line, "end", 3) == 0) {
        end_tree();
    }
}

static int quiet(tram_loop *of, const tram_exception *exception, void *arg) {
    (void)of, (void)exception, (void)arg;
    return 0;
}

int main(void) {
    char line[64];
    check(tram_loop_new(NULL, &loop));
    check(tram_loop_set_exception_handler(loop, quiet, NULL));
    check(tram_loop_start_actor(loop, &observer));
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return tram_loop_free(loop) ? 1 : 0;
}
