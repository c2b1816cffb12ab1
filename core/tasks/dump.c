/* Which tasks there are, and what each is at. */
#include <stdio.h>

#include "core/base/invalid.h"
#include "core/tasks/task.h"

static tram_task_state state_of(const tram_task *task) {
    if (task == tram__task_current)
        return TRAM_TASK_RUNNING;
    if (!task->thread)
        return TRAM_TASK_NEW;
    return task->wait && task->wait->state == WAIT_PENDING ? TRAM_TASK_WAITING : TRAM_TASK_READY;
}

static tram_task_info info_of(tram_task *task) {
    tram_task_state state = state_of(task);
    return (tram_task_info){
        .task = task,
        .name = tram_task_name(task),
        .function = task->function,
        .state = state,
        .waits_for = state == TRAM_TASK_WAITING ? task->wait->kind->name : NULL,
        .where = task->wait ? task->wait->where : NULL,
        .cancelling = (int)task->cancels,
    };
}

int tram_loop_each_task(tram_loop *loop, void (*visit)(const tram_task_info *info, void *arg), void *arg) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    struct task_loop *tasks = task_loop_present(loop);
    if (!visit)
        return tram__invalid("visit");
    for (struct list *link = tasks ? tasks->all.next : NULL; link && link != &tasks->all; link = link->next) {
        tram_task_info info = info_of(container_of(link, tram_task, link));
        visit(&info, arg);
    }
    return 0;
}

struct dump {
    void (*print)(void *arg, const char *line);
    void *arg;
};

static void print_task(const tram_task_info *info, void *arg) {
    const struct dump *dump = arg;
    static const char *const states[] = {"new", "ready", "running", "waits"};
    char line[512], function[128], where[128];
    int used = snprintf(line, sizeof line, "%s: %s, %s", info->name,
                        tram_function_name((const void *)(uintptr_t)info->function, function, sizeof function),
                        states[info->state]);
    size_t room = sizeof line - (size_t)used;
    if (info->waits_for)
        snprintf(line + used, room, " in %s at %s%s", info->waits_for,
                 tram_function_name(info->where, where, sizeof where), info->cancelling ? ", cancelling" : "");
    dump->print(dump->arg, line);
}

int tram_loop_dump_tasks(tram_loop *loop, void (*print)(void *arg, const char *line), void *arg) {
    struct dump dump = {print, arg};
    return print ? tram_loop_each_task(loop, print_task, &dump) : tram__invalid("print");
}
