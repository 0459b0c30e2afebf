namespace Vmm.Devices.Acpi;

/// <summary>How fast processors of one proximity domain reach memory of another. Every matrix is <c>[initiator][target]</c>.</summary>
/// <param name="Initiators">Domains with processors.</param>
/// <param name="Targets">Domains with memory.</param>
/// <param name="LatencyNanoseconds">Time of an access, 1 to a million; null when it is not known.</param>
/// <param name="BandwidthMegabytes">10^6 bytes a second, 1 to ten million; null when it is not known.</param>
public sealed record AcpiPerformance(
    IReadOnlyList<int> Initiators, IReadOnlyList<AcpiTarget> Targets, IReadOnlyList<IReadOnlyList<int>>? LatencyNanoseconds,
    IReadOnlyList<IReadOnlyList<int>>? BandwidthMegabytes);

/// <summary>A proximity domain with memory.</summary>
/// <param name="Domain">Its number.</param>
/// <param name="Initiator">The domain whose processors sit on the memory's own controller; null when there are none.</param>
public sealed record AcpiTarget(int Domain, int? Initiator);

/// <summary>Heterogeneous Memory Attribute Table, revision 2 (ACPI 6.5 section 5.2.28).</summary>
internal static class Hmat
{
    private const byte AccessLatency = 0, AccessBandwidth = 3;
    private const ulong PicosecondsPerNanosecond = 1000;

    /// <summary>Greatest value an entry can have: 0xFFFF means "no path".</summary>
    private const int MostPerEntry = 0xFFFE;

    internal static AcpiTable Build(AcpiPerformance performance)
    {
        AcpiTable hmat = new AcpiTable("HMAT", 2).U32(0);
        foreach (AcpiTarget target in performance.Targets)
        {
            // Memory Proximity Domain Attributes.
            hmat.U16(0).U16(0).U32(40).U16((ushort)(target.Initiator is null ? 0 : 1)).U16(0)
                .U32((uint)(target.Initiator ?? 0)).U32((uint)target.Domain).U32(0).U64(0).U64(0);
        }

        if (performance.LatencyNanoseconds is { } latency)
        {
            Localities(hmat, performance, AccessLatency, latency, PicosecondsPerNanosecond);
        }

        if (performance.BandwidthMegabytes is { } bandwidth)
        {
            Localities(hmat, performance, AccessBandwidth, bandwidth, 1);
        }

        return hmat;
    }

    /// <summary>System Locality Latency and Bandwidth Information, for memory itself (no side cache), reads and writes alike.</summary>
    private static void Localities(
        AcpiTable hmat, AcpiPerformance performance, byte kind, IReadOnlyList<IReadOnlyList<int>> matrix, ulong unit)
    {
        int initiators = performance.Initiators.Count, targets = performance.Targets.Count, greatest = 1;
        for (int i = 0; i < initiators; i++)
        {
            for (int j = 0; j < targets; j++)
            {
                greatest = Math.Max(greatest, matrix[i][j]);
            }
        }

        int scale = (greatest + MostPerEntry - 1) / MostPerEntry;
        hmat.U16(1).U16(0).U32((uint)(32 + (4 * initiators) + (4 * targets) + (2 * initiators * targets)))
            .U8(0).U8(kind).U8(0).U8(0).U32((uint)initiators).U32((uint)targets).U32(0).U64(unit * (ulong)scale);
        foreach (int initiator in performance.Initiators)
        {
            hmat.U32((uint)initiator);
        }

        foreach (AcpiTarget target in performance.Targets)
        {
            hmat.U32((uint)target.Domain);
        }

        for (int i = 0; i < initiators; i++)
        {
            for (int j = 0; j < targets; j++)
            {
                hmat.U16((ushort)Math.Max(1, matrix[i][j] / scale)); // 0 would be "not known"
            }
        }
    }
}
