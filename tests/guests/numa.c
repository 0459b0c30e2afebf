/* What MADT, SRAT, SLIT and HMAT say, one line a fact, and a write and read of the first and last page of each memory range. */
#include "acpi.h"

static void touch(u64 at)
{
    volatile u64 *p = (volatile u64 *)at;
    u64 old = *p;
    *p = at ^ 0x5aa5f00dull;
    if (*p != (at ^ 0x5aa5f00dull))
        fail("no memory at 0x%lx", at);
    *p = old;
}

static void show_madt(const u8 *t)
{
    unsigned cpus = 0;
    for (u32 at = 44, n = get32(t + 4); at + 2 <= n && t[at + 1]; at += t[at + 1])
        if ((t[at] == 0 && (t[at + 4] & 1)) || (t[at] == 9 && (t[at + 8] & 1))) {
            print("MADT apic=%u\n", t[at] == 0 ? t[at + 3] : get32(t + at + 4));
            cpus++;
        }
    print("CPUS %u\n", cpus);
}

static void show_srat(const u8 *t)
{
    for (u32 at = 48, n = get32(t + 4); at + 2 <= n && t[at + 1]; at += t[at + 1]) {
        const u8 *e = t + at;
        if (e[0] == 0 && (e[4] & 1)) {
            print("CPU apic=%u node=%u\n", e[3], (u32)(e[2] | e[9] << 8 | e[10] << 16) | (u32)e[11] << 24);
        } else if (e[0] == 2 && (e[12] & 1)) {
            print("CPU apic=%u node=%u\n", get32(e + 8), get32(e + 4));
        } else if (e[0] == 1 && (e[28] & 1)) {
            u64 base = get64(e + 8), length = get64(e + 16);
            if (!length || ((get32(e + 28) >> 1) & 1))      /* hot-pluggable: nothing there yet */
                continue;
            print("MEM base=0x%lx len=0x%lx node=%u\n", base, length, get32(e + 2));
            touch(base ? base : 0x1000);
            if (base + length <= 0xa0000 || base + length > 0x100000)
                touch(base + length - 4096);
        } else if (e[0] == 5 && e[3] == 1 && (e[24] & 1)) {
            print("INIT pci=%u:%u.%u node=%u\n", e[10], e[11] >> 3, e[11] & 7, get32(e + 4));
        }
    }
}

static void show_hmat(const u8 *t)
{
    for (u32 at = 40, n = get32(t + 4); at + 8 <= n && get32(t + at + 4); at += get32(t + at + 4)) {
        const u8 *e = t + at;
        if (get16(e) == 0) {
            print("HMAT target=%u initiator=%d\n", get32(e + 16), (get16(e + 8) & 1) ? (int)get32(e + 12) : -1);
        } else if (get16(e) == 1) {
            u32 initiators = get32(e + 12), targets = get32(e + 16);
            const u8 *from = e + 32, *to = from + 4 * initiators, *entry = to + 4 * targets;
            for (u32 i = 0; i < initiators; i++)
                for (u32 j = 0; j < targets; j++)
                    print("HMAT kind=%u from=%u to=%u value=%lu\n", e[9], get32(from + 4 * i), get32(to + 4 * j), get16(entry + 2 * (i * targets + j)) * get64(e + 24));
        }
    }
}

int main(struct start_info *info)
{
    args_init(info);
    print("TABLES %u\n", acpi_init(info));
    const u8 *madt = (const u8 *)acpi_find("APIC"), *srat = (const u8 *)acpi_find("SRAT"), *slit = (const u8 *)acpi_find("SLIT");
    const u8 *hmat = (const u8 *)acpi_find("HMAT");
    if (!madt)
        fail("no MADT");
    show_madt(madt);
    if (srat)
        show_srat(srat);
    if (slit)
        for (u64 n = get64(slit + 36), i = 0; i < n * n; i++)
            print("DIST %lu %lu %u\n", i / n, i % n, slit[44 + i]);
    if (hmat)
        show_hmat(hmat);
    print("RESULT numa srat=%d slit=%d\n", srat != NULL, slit != NULL);
    return srat || arg_number("need_srat", 0) == 0 ? 0 : 1;
}
