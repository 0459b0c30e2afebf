using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Acpi;

/// <summary>The tables of a hardware-reduced machine (ACPI 6.5 section 4.1.1), as one image for guest RAM.</summary>
public static class AcpiTables
{
    /// <summary>Local APICs.</summary>
    public const uint LocalApicAddress = 0xFEE0_0000;

    /// <summary>The IOAPIC.</summary>
    public const uint IoApicAddress = 0xFEC0_0000;

    private const ushort BootKeyboardController = 1 << 1, BootNoVga = 1 << 2;
    private const uint FlagWbinvd = 1, FlagControlMethodPowerButton = 1 << 4, FlagControlMethodSleepButton = 1 << 5,
        FlagTimer32Bit = 1 << 8, FlagResetRegister = 1 << 10, FlagHardwareReduced = 1 << 20;

    /// <summary>
    /// All tables, RSDP first, laid out from <paramref name="at"/>.
    /// </summary>
    /// <exception cref="ArgumentException">They do not fit into <paramref name="room"/> bytes.</exception>
    public static byte[] Build(AcpiConfig config, GuestAddress at, int room)
    {
        ByteSink image = new();
        image.AddZeros(64); // the RSDP goes here last
        AcpiPlaces places = Append(image, at, config);
        byte[] result = image.ToArray();
        Rsdp(places.Xsdt).CopyTo(result, 0);
        return result.Length <= room
            ? result
            : throw new ArgumentException(
                $"ACPI tables take {result.Length} bytes, there is room for {room}: fewer vCPUs or vnodes are needed", nameof(config));
    }

    /// <summary>
    /// The same tables for a firmware that finds a place for them itself: addresses in them count from the start of the file, and a script
    /// says which these are. The length depends on nothing but what there is.
    /// </summary>
    public static AcpiFiles BuildFiles(AcpiConfig config)
    {
        ByteSink image = new();
        AcpiPlaces places = Append(image, new GuestAddress(0), config);
        return AcpiFiles.Create(Rsdp(places.Xsdt), image.ToArray(), places);
    }

    private static AcpiPlaces Append(ByteSink image, GuestAddress at, AcpiConfig config)
    {
        List<ulong> listed = [];
        byte[] dsdt = Dsdt.Build(config);
        ulong dsdtAt = Append(image, at, dsdt);
        ulong fadtAt = Append(image, at, Fadt(config, dsdtAt).ToArray());
        listed.Add(fadtAt);
        listed.Add(Append(image, at, Madt(config).ToArray()));
        listed.Add(Append(image, at, Mcfg(config).ToArray()));
        if (config.Serial)
        {
            listed.Add(Append(image, at, Spcr().ToArray()));
        }

        if (config.Distances is not null)
        {
            listed.Add(Append(image, at, Srat(config).ToArray()));
            listed.Add(Append(image, at, Slit(config.Distances).ToArray()));
            if (config.Performance is { } performance)
            {
                listed.Add(Append(image, at, Hmat.Build(performance).ToArray()));
            }
        }

        AcpiTable xsdt = new("XSDT", 1);
        foreach (ulong table in listed)
        {
            xsdt.U64(table);
        }

        return new AcpiPlaces(fadtAt, Append(image, at, xsdt.ToArray()), listed.Count);
    }

    private static ulong Append(ByteSink image, GuestAddress at, byte[] table)
    {
        image.AddZeros(-image.Count & 15);
        ulong place = at.Value + (ulong)image.Count;
        image.Add(table);
        return place;
    }

    /// <summary>5.2.5.3: revision 2, both checksums.</summary>
    private static byte[] Rsdp(ulong xsdt)
    {
        byte[] rsdp = new byte[36];
        "RSD PTR "u8.CopyTo(rsdp);
        "VMMCS "u8.CopyTo(rsdp.AsSpan(9));
        rsdp[15] = 2;
        BinaryPrimitives.WriteInt32LittleEndian(rsdp.AsSpan(20), rsdp.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(rsdp.AsSpan(24), xsdt);
        rsdp[8] = AcpiTable.Checksum(rsdp.AsSpan(0, 20));
        rsdp[32] = AcpiTable.Checksum(rsdp);
        return rsdp;
    }

    /// <summary>
    /// 5.2.9: no PM1 blocks; power-off through <see cref="Legacy.AcpiPowerPorts"/>, reset through <see cref="Legacy.ResetControl"/>. Of the
    /// fixed hardware only the PM timer (4.8.3.3) is there, which a hardware-reduced machine need not have: Linux and memtest86+ take it
    /// from these fields all the same.
    /// </summary>
    private static AcpiTable Fadt(AcpiConfig config, ulong dsdt) => new AcpiTable("FACP", 6)
        .ZeroTo(76).U32(config.PmTimerPort)           // PM_TMR_BLK
        .ZeroTo(91).U8(AcpiPmTimer.Length)            // PM_TMR_LEN
        .ZeroTo(109).U16((ushort)(BootNoVga | (config.KeyboardGsi is null ? 0 : BootKeyboardController))) // IAPC_BOOT_ARCH
        .ZeroTo(112).U32(FlagWbinvd | FlagControlMethodPowerButton | FlagControlMethodSleepButton | FlagTimer32Bit | FlagResetRegister
            | FlagHardwareReduced)
        .PortRegister(Legacy.ResetControl.Port)       // RESET_REG
        .U8(Legacy.ResetControl.ResetValue)
        .ZeroTo(131).U8(3)                            // minor version
        .ZeroTo(140).U64(dsdt)                        // X_DSDT
        .ZeroTo(208).PortRegister(config.PmTimerPort, AcpiPmTimer.Length) // X_PM_TMR_BLK
        .ZeroTo(244)
        .PortRegister(config.PowerPort)               // SLEEP_CONTROL_REG
        .PortRegister((ushort)(config.PowerPort + 1)) // SLEEP_STATUS_REG
        .U64(0);                                      // hypervisor vendor

    /// <summary>5.2.12.</summary>
    private static AcpiTable Madt(AcpiConfig config)
    {
        bool x2Apic = false;
        AcpiTable madt = new AcpiTable("APIC", 5).U32(LocalApicAddress).U32(0);
        for (int i = 0; i < config.Processors.Count; i++)
        {
            uint id = config.Processors[i].ApicId;
            if (id < 255 && i < 255)
            {
                madt.U8(0).U8(8).U8((byte)i).U8((byte)id).U32(1);
            }
            else
            {
                x2Apic = true;
                madt.U8(9).U8(16).U16(0).U32(id).U32(1).U32((uint)i);
            }
        }

        madt.U8(1).U8(12).U8(0).U8(0).U32(IoApicAddress).U32(0);
        madt.U8(2).U8(10).U8(0).U8(4).U32(4).U16(0x5); // IRQ 4 is GSI 4, active high, edge
        madt.U8(4).U8(6).U8(0xFF).U16(0).U8(1); // NMI at LINT1 of every processor with a local APIC entry
        return x2Apic ? madt.U8(0xA).U8(12).U16(0).U32(uint.MaxValue).U8(1).Zero(3) : madt; // and of every one with an x2APIC entry
    }

    /// <summary>PCI Firmware specification 3.2, section 4.1.2.</summary>
    private static AcpiTable Mcfg(AcpiConfig config) => new AcpiTable("MCFG", 1)
        .Zero(8).U64(config.EcamBase.Value).U16(0).U8(0).U8(config.LastBus).U32(0);

    /// <summary>
    /// Serial Port Console Redirection table, revision 2: the 16550 at port 0x3F8, GSI 4, 115200 8N1; not a PCI device. Linux's
    /// <c>earlycon</c> finds it.
    /// </summary>
    private static AcpiTable Spcr() => new AcpiTable("SPCR", 2)
        .U8(0).Zero(3).PortRegister(0x3F8)
        .U8(2).U8(0).U32(4)                  // through the IOAPIC
        .U8(7).U8(0).U8(1).U8(0).U8(3).U8(0) // 115200, no parity, one stop bit, no flow control, ANSI
        .U16(0xFFFF).U16(0xFFFF).Zero(12);

    /// <summary>5.2.16.</summary>
    private static AcpiTable Srat(AcpiConfig config)
    {
        AcpiTable srat = new AcpiTable("SRAT", 3).U32(1).Zero(8);
        foreach (AcpiProcessor processor in config.Processors)
        {
            uint domain = (uint)processor.Vnode;
            if (processor.ApicId < 255)
            {
                srat.U8(0).U8(16).U8((byte)domain).U8((byte)processor.ApicId).U32(1)
                    .U8(0).U8((byte)(domain >> 8)).U8((byte)(domain >> 16)).U8((byte)(domain >> 24)).U32(0);
            }
            else
            {
                srat.U8(2).U8(24).U16(0).U32(domain).U32(processor.ApicId).U32(1).U32(0).U32(0);
            }
        }

        foreach (AcpiMemory memory in config.Memory)
        {
            srat.U8(1).U8(40).U32((uint)memory.Vnode).U16(0).U64(memory.Start.Value).U64(memory.Length).U32(0)
                .U32(memory.HotPluggable ? 3u : 1u).U64(0);
        }

        foreach (AcpiInitiator device in config.Initiators)
        {
            // 5.2.16.6, generic initiator affinity with a PCI handle: segment, then the bus in the lower byte, device and function in the
            // upper.
            srat.U8(5).U8(32).U8(0).U8(1).U32((uint)device.Vnode).U16(0).U8(device.Bus).U8((byte)(device.Slot << 3)).Zero(12).U32(1).U32(0);
        }

        return srat;
    }

    /// <summary>5.2.17.</summary>
    private static AcpiTable Slit(IReadOnlyList<IReadOnlyList<int>> distances)
    {
        AcpiTable slit = new AcpiTable("SLIT", 1).U64((ulong)distances.Count);
        foreach (IReadOnlyList<int> row in distances)
        {
            foreach (int distance in row)
            {
                slit.U8((byte)distance);
            }
        }

        return slit;
    }
}
