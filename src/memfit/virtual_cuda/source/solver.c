/* libcusolver: everything it does follows from its header. */
#include "card.h"

int cusolverGetVersion(int *version) { *version = CUDA_VERSION; return 0; }
