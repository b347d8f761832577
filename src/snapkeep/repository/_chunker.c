/* The inner loop of the chunker: the same as `scan` in chunker.py, and nothing else.
 *
 * The value at a position depends on the 64 bytes before it alone. So four stretches of the data are scanned side by
 * side, each after its own 64 bytes of run-up: one byte waits for the one before it, four do not wait for each other.
 */
#include <Python.h>
#include <stdint.h>

#define WINDOW 64
#define LANES 4
#define STRETCH 8192 /* bytes of one lane: the run-up costs less than a hundredth of them */
#define MASK ((1u << 20) - 1)

typedef struct {
    uint64_t out[256]; /* what a byte is worth when it leaves the window */
    uint64_t mod[256]; /* what the eight highest bits are worth when they are shifted out */
} Tables;

/* The polynomial has degree 53, so a value has at most 53 bits and its eight highest begin at bit 45. */
#define APPEND(t, value, byte) ((((value) << 8) | (byte)) ^ (t)->mod[(value) >> 45])
#define SLIDE(t, value, old, byte) APPEND(t, (value) ^ (t)->out[old], byte)

static uint64_t value_before(const Tables *t, const unsigned char *at) {
    uint64_t value = 0;
    for (int i = -WINDOW; i < 0; i++) {
        value = APPEND(t, value, at[i]);
    }
    return value;
}

/* Return the first position in [first, last) with a value whose lowest 20 bits are 0, or -1. */
static Py_ssize_t scan_one(const Tables *t, const unsigned char *data, Py_ssize_t first, Py_ssize_t last) {
    if (first >= last) {
        return -1;
    }
    uint64_t value = value_before(t, data + first);
    for (Py_ssize_t at = first; (value & MASK) != 0; at++) {
        if (at + 1 >= last) {
            return -1;
        }
        value = SLIDE(t, value, data[at - WINDOW], data[at]);
        if ((value & MASK) == 0) {
            return at + 1;
        }
    }
    return first;
}

static Py_ssize_t scan_all(const Tables *t, const unsigned char *data, Py_ssize_t first, Py_ssize_t last) {
    for (; last - first >= LANES * STRETCH; first += LANES * STRETCH) {
        uint64_t value[LANES];
        int found = 0;
        for (int lane = 0; lane < LANES; lane++) {
            value[lane] = value_before(t, data + first + lane * STRETCH);
            found |= (value[lane] & MASK) == 0;
        }
        const unsigned char *base = data + first;
        for (Py_ssize_t i = 0; i < STRETCH - 1; i++) {
            for (int lane = 0; lane < LANES; lane++) {
                const unsigned char *at = base + lane * STRETCH + i;
                value[lane] = SLIDE(t, value[lane], at[-WINDOW], at[0]);
                found |= (value[lane] & MASK) == 0;
            }
        }
        if (found) { /* rare: look again, in order */
            return scan_one(t, data, first, first + LANES * STRETCH);
        }
    }
    return scan_one(t, data, first, last);
}

static PyObject *scan(PyObject *module, PyObject *args) {
    Py_buffer tables, data;
    Py_ssize_t first, last, found;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*nn:scan", &tables, &data, &first, &last)) {
        return NULL;
    }
    if (tables.len != sizeof(Tables) || (uintptr_t)tables.buf % sizeof(uint64_t) != 0 || first < WINDOW ||
        last > data.len + 1) {
        PyErr_SetString(PyExc_ValueError, "the tables or the positions are wrong");
        PyBuffer_Release(&tables);
        PyBuffer_Release(&data);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    found = scan_all(tables.buf, data.buf, first, last);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&tables);
    PyBuffer_Release(&data);
    return PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS, "Return the first position in [first, last) at which a chunk may end, or -1."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_chunker", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__chunker(void) { return PyModuleDef_Init(&definition); }
