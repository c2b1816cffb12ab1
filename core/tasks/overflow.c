/*
 * Says which task overflowed its stack. The handler of SIGSEGV belongs to the process, so it is set only for who asks.
 * It needs a stack of its own: each thread gets one when it starts its first task afterwards.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/tasks/task.h"

static _Atomic bool wanted;
static struct sigaction before;
static _Thread_local bool prepared;

#define ALTERNATE_STACK 32768u

/* ---- The handler: what may be called there only ---- */

/* Room for the one sentence that is said: a name, a number, and not a hundred characters besides. */
struct text {
    char bytes[256];
    size_t used;
};
_Static_assert(TASK_NAME + 21 + 100 <= sizeof((struct text *)0)->bytes, "the sentence fits");

static void add(struct text *text, const char *word) {
    size_t length = strlen(word);
    memcpy(text->bytes + text->used, word, length);
    text->used += length;
}

static void add_number(struct text *text, uint64_t number) {
    char digits[21];
    char *end = digits + sizeof digits - 1, *digit = end;
    *end = '\0';
    do
        *--digit = (char)('0' + number % 10);
    while (number /= 10);
    add(text, digit);
}

static bool is_guard(const struct stack *stack, const char *address) {
    return address >= stack->base && address < stack->base + stack->guard;
}

static void say(const tram_task *task) {
    struct text text = {.used = 0};
    add(&text, "tram: task ");
    if (task->name[0]) {
        add(&text, task->name);
    } else {
        add(&text, "task-");
        add_number(&text, task->number);
    }
    add(&text, " overflowed its stack of ");
    add_number(&text, stack_usable(&task->stack));
    add(&text, " bytes: see stack_size of tram_task_options\n");
    ssize_t written = write(STDERR_FILENO, text.bytes, text.used);
    (void)written;
}

/* The fault comes again when the handler returns, and then takes the course that it had before us. */
static void handle(int number, siginfo_t *info, void *machine) {
    (void)machine;
    int saved = errno;
    const tram_task *task = tram__task_current;
    if (task && is_guard(&task->stack, info->si_addr))
        say(task);
    sigaction(number, &before, NULL);
    errno = saved;
}

/* ---- Setting up ---- */

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void free_alternate_stack(void *memory) {
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(memory, ALTERNATE_STACK);
}

static void make_key(void) {
    pthread_key_create(&key, free_alternate_stack);
}

static void give_alternate_stack(void) {
    stack_t present;
    if (sigaltstack(NULL, &present) || !(present.ss_flags & SS_DISABLE))
        return; /* it has one */
    void *memory = mmap(NULL, ALTERNATE_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return;
    stack_t stack = {.ss_sp = memory, .ss_size = ALTERNATE_STACK};
    pthread_once(&key_once, make_key);
    if (sigaltstack(&stack, NULL) || pthread_setspecific(key, memory))
        munmap(memory, ALTERNATE_STACK);
}

void tram__overflow_prepare(void) {
    if (likely(!atomic_load_explicit(&wanted, memory_order_relaxed)) || prepared)
        return;
    prepared = true;
    give_alternate_stack();
}

int tram_task_report_overflows(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int status = 0;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&wanted)) {
        struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigemptyset(&action.sa_mask);
        status = sigaction(SIGSEGV, &action, &before) ? -errno : 0;
        atomic_store(&wanted, !status);
    }
    pthread_mutex_unlock(&lock);
    return status;
}
