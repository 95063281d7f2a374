/* The part of libcudnn for recurrent layers: how large weights, workspace and reserve are.
 *
 * The real library answers. It reads nothing of the handle for the standard algorithm (cuDNN 9.26:
 * handles full of zeros and of other numbers get the same answers), and has written both sizes
 * when it finds that there is no device. It refuses without one what only some devices have:
 * bfloat16, which is asked for as float16, and the persistent algorithms, for the standard one.
 */
#include "card.h"

enum { STANDARD = 0 };
enum { HALF = 2, BFLOAT16 = 9 };

void *memfit_real(const char *name);
#define REAL(name, ...) ((int (*)(__VA_ARGS__))memfit_real(#name))

static int as_wide(int type) { return type == BFLOAT16 ? HALF : type; }

int cudnnSetRNNDescriptor_v8(void *of, int algorithm, int cell, int bias, int direction, int input,
                             int type, int precision, int math, int inputs, int hidden,
                             int projected, int count, void *dropout, unsigned flags) {
    return REAL(cudnnSetRNNDescriptor_v8, void *, int, int, int, int, int, int, int, int, int, int,
                int, int, void *, unsigned)(of, STANDARD, cell, bias, direction, input,
                                            as_wide(type), precision, math, inputs, hidden,
                                            projected, count, dropout, flags);
}
int cudnnSetRNNDataDescriptor(void *of, int type, int layout, int steps, int samples, int width,
                              const int lengths[], void *padding) {
    return REAL(cudnnSetRNNDataDescriptor, void *, int, int, int, int, int, const int *, void *)(
        of, as_wide(type), layout, steps, samples, width, lengths, padding);
}
int cudnnGetRNNTempSpaceSizes(void *handle, void *of, int mode, void *read, size_t *workspace,
                              size_t *reserve) {
    size_t found = 0;
    REAL(cudnnGetRNNTempSpaceSizes, void *, void *, int, void *, size_t *, size_t *)(
        handle, of, mode, read, &found, reserve);
    if (workspace) *workspace = found;
    return found ? 0 : 3000; /* not supported */
}

/* Random states are made by a kernel; to restore them is to note where they are. */
int cudnnSetDropoutDescriptor(void *of, void *handle, float probability, void *states, size_t bytes,
                              unsigned long long seed) {
    return REAL(cudnnRestoreDropoutDescriptor, void *, void *, float, void *, size_t,
                unsigned long long)(of, handle, probability, states, bytes, seed);
}
int cudnnRestoreDropoutDescriptor(void *of, void *handle, float probability, void *states,
                                  size_t bytes, unsigned long long seed) {
    return cudnnSetDropoutDescriptor(of, handle, probability, states, bytes, seed);
}
int cudnnDropoutGetStatesSize(void *handle, size_t *bytes) { *bytes = 0; return 0; }
