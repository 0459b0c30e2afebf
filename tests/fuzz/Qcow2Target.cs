using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Testing.Images;

namespace Vmm.Fuzz;

/// <summary>
/// An image of any bytes: what it says of itself, a check, a map and the first bytes of each part, a repair. Each either works or ends with
/// one exception that says why. After a repair nothing that can be mended is left, and what could be read reads the same.
/// </summary>
internal static class Qcow2Target
{
    private const int MostExtents = 20_000, MostErrors = 8;

    internal static void Run(byte[] input)
    {
        using ByteImage file = new((byte[])input.Clone());
        try
        {
            _ = Qcow2Info.Read(file);
            CheckReport report = Qcow2Check.Run(file);
            ulong before = Content(file);
            RepairResult result = Qcow2Repair.Run(file, RepairMode.All);
            if (result.After.Findings.Any(f => f.Kind is CheckFindingKind.RefcountTooSmall) && !report.HasDamagedEntries)
            {
                throw new InvalidOperationException("a repair left refcounts that are too small");
            }

            if (file.Writes > 0 && Content(file) != before)
            {
                throw new InvalidOperationException("a repair changed what the disk reads as");
            }
        }
        catch (BlockException e) when (e.Message.Length is > 0 and < 2000)
        {
        }
    }

    // A sum over where the parts of the disk lie and their first bytes. Behind each error the next step is twice as long, until something
    // is read: exceptions are most of the time that a damaged image takes.
    private static ulong Content(ByteImage file)
    {
        using Qcow2Layer layer = new(file, isOwner: false);
        byte[] bytes = new byte[512];
        ulong sum = 0;
        int extents = 0, errors = 0, inARow = 0;
        for (ulong at = 0; at < layer.Size && extents < MostExtents && errors < MostErrors; extents++)
        {
            ulong length = 512;
            try
            {
                DiskExtent extent = layer.Map(at, layer.Size - at);
                length = extent.Length;
                sum = (sum * 31) + extent.Start + extent.Length + (uint)extent.Kind + extent.HostOffset;
                if (extent.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed)
                {
                    Span<byte> first = bytes.AsSpan(0, (int)Math.Min(512, length));
                    layer.Read(extent, first);
                    foreach (byte b in first)
                    {
                        sum = (sum * 31) + b;
                    }
                }

                inARow = 0;
            }
            catch (BlockException e) when (e.Message.Length is > 0 and < 2000)
            {
                sum = (sum * 31) + 1;
                errors++;
                length = 512ul << inARow++;
            }

            at += length;
        }

        return sum;
    }
}
