#include "acpi.h"

static const u8 *xsdt;
static unsigned entry_size;

static bool sums_to_zero(const u8 *p, size_t n)
{
    u8 sum = 0;
    while (n--)
        sum = (u8)(sum + *p++);
    return sum == 0;
}

static const struct acpi_table *entry(unsigned i)
{
    const u8 *p = xsdt + 36 + i * entry_size;
    return (const struct acpi_table *)(entry_size == 8 ? get64(p) : get32(p));
}

static unsigned count(void)
{
    return (((const struct acpi_table *)xsdt)->length - 36) / entry_size;
}

unsigned acpi_init(const struct start_info *info)
{
    const u8 *rsdp = (const u8 *)info->rsdp;
    if (!rsdp || memcmp(rsdp, "RSD PTR ", 8) || !sums_to_zero(rsdp, 20))
        fail("no RSDP at 0x%lx", info->rsdp);
    if (rsdp[15] >= 2 && !sums_to_zero(rsdp, 36))
        fail("RSDP extended checksum");
    entry_size = rsdp[15] >= 2 && get64(rsdp + 24) ? 8 : 4;     /* XSDT if there is one, else RSDT */
    xsdt = (const u8 *)(entry_size == 8 ? get64(rsdp + 24) : get32(rsdp + 16));
    if (memcmp(xsdt, entry_size == 8 ? "XSDT" : "RSDT", 4) || !sums_to_zero(xsdt, get32(xsdt + 4)))
        fail("root table at 0x%lx", (u64)xsdt);
    for (unsigned i = 0; i < count(); i++)
        if (!sums_to_zero((const u8 *)entry(i), entry(i)->length))
            fail("checksum of table %u at 0x%lx", i, (u64)entry(i));
    return count();
}

const struct acpi_table *acpi_find(const char *signature)
{
    for (unsigned i = 0; i < count(); i++)
        if (memcmp(entry(i)->signature, signature, 4) == 0)
            return entry(i);
    return NULL;
}
