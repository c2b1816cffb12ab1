/* How signals stop a runtime. */
#ifndef TRAM_CORE_RUNTIME_STOP_H
#define TRAM_CORE_RUNTIME_STOP_H

#include <tram/runtime.h>

/* On the thread of the first worker: SIGTERM and SIGINT stop the runtime, if its options want that. 0 or an error. */
int tram__runtime_handle_signals(tram_runtime *runtime);

#endif
