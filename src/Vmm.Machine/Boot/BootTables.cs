using Vmm.Memory;
using static Vmm.Machine.Boot.BootWriter;

namespace Vmm.Machine.Boot;

/// <summary>The tables the boot CPU starts on: GDT, identity page tables, zero page or PVH start info.</summary>
internal static class BootTables
{
    internal static void WriteGdt(GuestMemory memory, InitialCpuState cpu)
    {
        Span<byte> gdt = stackalloc byte[5 * 8];
        gdt.Clear();
        Put64(gdt, cpu.Code.Selector, cpu.Code.Descriptor);
        Put64(gdt, cpu.Data.Selector, cpu.Data.Descriptor);
        Put64(gdt, cpu.Task.Selector, cpu.Task.Descriptor);
        Write(memory, BootLayout.Gdt, gdt);
    }

    /// <summary>Identity map of the first 4 GiB with 2 MiB pages (SDM vol. 3, 4.5): present, writable; PS in the directories.</summary>
    internal static void WritePageTables(GuestMemory memory)
    {
        Span<byte> page = stackalloc byte[4096];
        page.Clear();
        Put64(page, 0, (BootLayout.PageTables + 0x1000) | 3);
        Write(memory, BootLayout.PageTables, page);
        for (int i = 0; i < 4; i++)
        {
            Put64(page, i * 8, (BootLayout.PageTables + 0x2000 + ((ulong)i * 0x1000)) | 3);
        }

        Write(memory, BootLayout.PageTables + 0x1000, page);
        for (int i = 0; i < 4; i++)
        {
            for (int j = 0; j < 512; j++)
            {
                Put64(page, j * 8, (((ulong)(i * 512) + (ulong)j) << 21) | 0x83);
            }

            Write(memory, BootLayout.PageTables + 0x2000 + ((ulong)i * 0x1000), page);
        }
    }

    /// <summary>boot_params (Documentation/arch/x86/zero-page.rst), with the kernel's own setup header when it has one.</summary>
    internal static void WriteZeroPage(
        GuestMemory memory, BzImageHeader? header, ulong initrd, ulong initrdSize, ulong rsdp, IReadOnlyList<BootMemoryRange> map)
    {
        Span<byte> page = stackalloc byte[4096];
        page.Clear();
        if (header is not null)
        {
            header.Raw.CopyTo(page[BzImageHeader.Start..]);
        }
        else
        {
            // An ELF vmlinux has no header of its own; the kernel looks at these only.
            Put16(page, 0x1FE, 0xAA55);
            Put32(page, 0x202, 0x5372_6448);
            Put16(page, 0x206, 0x020F);
            Put32(page, 0x230, 0x20_0000);
        }

        Put64(page, 0x070, rsdp);
        page[0x210] = 0xFF;                                         // type_of_loader: no number assigned
        page[0x211] = (byte)((page[0x211] | 0x01) & ~0x80);         // LOADED_HIGH; CAN_USE_HEAP is for the real-mode part only
        Put32(page, 0x218, (uint)initrd);
        Put32(page, 0x0C0, (uint)(initrd >> 32));
        Put32(page, 0x21C, (uint)initrdSize);
        Put32(page, 0x0C4, (uint)(initrdSize >> 32));
        Put32(page, 0x228, (uint)BootLayout.CommandLine);
        Put64(page, 0x250, 0);                                      // setup_data: none
        page[0x1E8] = (byte)map.Count;
        for (int i = 0; i < map.Count; i++)
        {
            int at = 0x2D0 + (i * 20);
            Put64(page, at, map[i].Start);
            Put64(page, at + 8, map[i].Length);
            Put32(page, at + 16, map[i].Type);
        }

        Write(memory, BootLayout.ZeroPage, page);
    }

    /// <summary>hvm_start_info version 1 (Xen public/arch-x86/hvm/start_info.h).</summary>
    internal static void WriteStartInfo(GuestMemory memory, ulong initrd, ulong initrdSize, ulong rsdp, IReadOnlyList<BootMemoryRange> map)
    {
        Span<byte> area = stackalloc byte[(int)(BootLayout.ZeroPage - BootLayout.PvhStartInfo)];
        area.Clear();
        Put32(area, 0, 0x336E_C578);
        Put32(area, 4, 1);
        Put32(area, 12, initrdSize > 0 ? 1u : 0u);
        Put64(area, 16, initrdSize > 0 ? BootLayout.PvhModules : 0);
        Put64(area, 24, BootLayout.CommandLine);
        Put64(area, 32, rsdp);
        Put64(area, 40, BootLayout.PvhMemoryMap);
        Put32(area, 48, (uint)map.Count);
        int module = (int)(BootLayout.PvhModules - BootLayout.PvhStartInfo);
        Put64(area, module, initrd);
        Put64(area, module + 8, initrdSize);
        for (int i = 0; i < map.Count; i++)
        {
            int at = (int)(BootLayout.PvhMemoryMap - BootLayout.PvhStartInfo) + (i * 24);
            Put64(area, at, map[i].Start);
            Put64(area, at + 8, map[i].Length);
            Put32(area, at + 16, map[i].Type);
        }

        Write(memory, BootLayout.PvhStartInfo, area);
    }
}
