#include "core/base/steps.h"

#if TRAM_CHECKED
void (*tram__between_steps)(void);
#else
typedef int nothing_here; /* a file of C has at least one declaration */
#endif
