/* libnvrtc: PyTorch compiles some kernels when they are first used. Here none runs: whatever is
 * compiled is empty, and the driver takes it.
 */
#include "card.h"

int nvrtcVersion(int *major, int *minor) {
    *major = CUDA_VERSION / 1000;
    *minor = CUDA_VERSION % 1000 / 10;
    return 0;
}
int nvrtcGetNumSupportedArchs(int *count) { *count = 1; return 0; }
int nvrtcGetSupportedArchs(int *architectures) {
    *architectures = 10 * CARD_MAJOR + CARD_MINOR;
    return 0;
}
int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers,
                       const char **header_sources, const char **header_names) {
    *program = malloc(1);
    return 0;
}
int nvrtcDestroyProgram(void **program) {
    free(*program);
    *program = NULL;
    return 0;
}
int nvrtcGetCUBINSize(void *program, size_t *bytes) { *bytes = 1; return 0; }
int nvrtcGetCUBIN(void *program, char *code) { *code = 0; return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { *bytes = 1; return 0; }
int nvrtcGetPTX(void *program, char *code) { *code = 0; return 0; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { *bytes = 1; return 0; }
int nvrtcGetProgramLog(void *program, char *text) { *text = 0; return 0; }
int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
    *lowered = name;
    return 0;
}
const char *nvrtcGetErrorString(int error) { return "error of the virtual GPU"; }
