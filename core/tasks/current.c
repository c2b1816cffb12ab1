#include "core/tasks/task.h"

_Thread_local __attribute__((tls_model("initial-exec"))) tram_task *tram__task_current;

tram_task *tram_task_current(void) {
    return tram__task_current;
}
