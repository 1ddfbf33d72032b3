/* QEMU plugin: the AArch64 instructions that a program executes between two marks.
 *
 * A mark is a system call without effect: sched_get_priority_max(0x4d000000 + number). Number 0 sets the counts to zero,
 * any other writes "COUNT number all vector loads multiplies" to QEMU's log and sets them to zero. Counted are all
 * instructions, vector arithmetic (floating point included), loads, and of the vector arithmetic the multiplications:
 * of floats (FMLA) and of integers (SMULL, SMLAL, UMULL, SDOT, UDOT, SMMLA).
 */
#include <inttypes.h>
#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { ALL, VECTOR, LOADS, MULTIPLIES, KINDS };
enum { SCHED_GET_PRIORITY_MAX = 125, MARK = 0x4d };

static qemu_plugin_u64 counter[KINDS];

static gboolean multiplies(uint32_t code)
{
    return (code & 0xbfa0fc00) == 0x0e20cc00      /* FMLA, vector */
        || (code & 0xbf80f400) == 0x0f801000      /* FMLA, by element */
        || (code & 0x9f20dc00) == 0x0e208000      /* SMLAL, UMLAL */
        || (code & 0x9f20fc00) == 0x0e20c000      /* SMULL, UMULL */
        || (code & 0x9fe0fc00) == 0x0e809400      /* SDOT, UDOT, vector */
        || (code & 0x9f00f400) == 0x0f00e000      /* SDOT, UDOT, by element */
        || (code & 0xdfe0fc00) == 0x4e80a400;     /* SMMLA, UMMLA */
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    uint64_t found[KINDS] = {0};
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        uint32_t code = 0;
        if (qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i), &code, 4) != 4) {
            continue;
        }
        found[ALL]++;
        if ((code & 0x0e000000) == 0x0e000000) {
            found[VECTOR]++;
            found[MULTIPLIES] += multiplies(code);
        } else if ((code & 0x0a000000) == 0x08000000 && (code & 0x00400000)) {
            found[LOADS]++;
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (found[kind]) {
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
                block, QEMU_PLUGIN_INLINE_ADD_U64, counter[kind], found[kind]);
        }
    }
}

static void on_syscall(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t mark, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number != SCHED_GET_PRIORITY_MAX || (uint32_t)mark >> 24 != MARK) {
        return;
    }
    if (mark & 0xffffff) {
        g_autoptr(GString) line = g_string_new(NULL);
        g_string_printf(line, "COUNT %u", (unsigned)(mark & 0xffffff));
        for (int kind = 0; kind < KINDS; kind++) {
            g_string_append_printf(line, " %" PRIu64, qemu_plugin_u64_sum(counter[kind]));
        }
        g_string_append(line, "\n");
        qemu_plugin_outs(line->str);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        for (int each = 0; each < qemu_plugin_num_vcpus(); each++) {
            qemu_plugin_u64_set(counter[kind], each, 0);
        }
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    struct qemu_plugin_scoreboard *board = qemu_plugin_scoreboard_new(KINDS * sizeof(uint64_t));
    for (int kind = 0; kind < KINDS; kind++) {
        counter[kind].score = board;
        counter[kind].offset = kind * sizeof(uint64_t);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
