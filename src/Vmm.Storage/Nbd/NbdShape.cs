using Vmm.Interop;

namespace Vmm.Storage.Nbd;

/// <summary>What a server's export is as a disk. Every figure is the server's word, and is looked at here.</summary>
internal sealed class NbdShape
{
    /// <summary>Most bytes of one read or write.</summary>
    internal const uint MostPayload = 32 << 20;

    /// <summary>Most bytes of one trim or zeroing: what a server answers in a reasonable time.</summary>
    internal const uint MostRange = 32 << 20;

    private const long MostBlock = 64 << 10, LeastPayload = 64 << 10;

    private readonly NbdExport _export;

    /// <exception cref="BlockException">No disk can be made of it.</exception>
    internal NbdShape(string name, in NbdExport export, bool readOnly)
    {
        _export = export;
        if (export.Size <= 0 || export.Size % 512 != 0)
        {
            throw Refused(name, BlockErrorKind.BadSize, export.Size < 0 ? "the server claims an impossible size"
                : $"the export has {export.Size} bytes, which is not a whole number of sectors");
        }

        long minimum = Math.Max(1, export.MinimumBlock), maximum = export.MaximumPayload == 0 ? MostPayload : export.MaximumPayload;
        if (!long.IsPow2(minimum) || minimum > MostBlock || export.Size % minimum != 0 || maximum < Math.Max(minimum, LeastPayload))
        {
            throw Refused(name, BlockErrorKind.NotADisk,
                $"the server wants blocks of at least {minimum} and at most {maximum} bytes for {export.Size}, which no disk can have");
        }

        if (export.ReadOnly && !readOnly)
        {
            throw Refused(name, BlockErrorKind.AccessDenied, "the server lets nobody write to it; say readOnly: true");
        }

        Block = (uint)minimum;
        Payload = (uint)Math.Min(maximum, MostPayload) / Block * Block;
        CanFlush = export.CanFlush;
        CanFua = export.CanFua;
        CanTrim = export.CanTrim && !readOnly;
        CanZero = export.CanZero;
        int logical = (int)Math.Max(512, Block);
        long preferred = export.PreferredBlock;
        bool isUsual = preferred > logical && preferred <= MostBlock && long.IsPow2(preferred);
        Geometry = new BlockGeometry((ulong)export.Size, logical, isUsual ? (int)preferred : Math.Max(4096, logical), readOnly,
            readOnly ? DiskAbilities.None : DiskAbilities.WriteZeroes | (CanTrim ? DiskAbilities.Discard : 0))
        {
            DiscardGranularity = (uint)Math.Max(logical, isUsual ? (int)preferred : 0),
        };
    }

    /// <summary>What the disk is like.</summary>
    internal BlockGeometry Geometry { get; }

    /// <summary>Every range is whole blocks of so many bytes; a power of two.</summary>
    internal uint Block { get; }

    /// <summary>Most bytes of one read or write, whole blocks.</summary>
    internal uint Payload { get; }

    internal bool CanFlush { get; }

    internal bool CanFua { get; }

    internal bool CanTrim { get; }

    internal bool CanZero { get; }

    /// <summary>Why a disk cannot go on with what a server announces now; null when it can.</summary>
    internal string? WhyNot(in NbdExport now)
    {
        if (now.Size != _export.Size)
        {
            return $"its export has {now.Size} bytes now, and had {_export.Size}";
        }

        bool hasLess = (now.ReadOnly && !_export.ReadOnly) || (_export.CanTrim && !now.CanTrim) || (_export.CanZero && !now.CanZero)
            || (_export.CanFua && !now.CanFua) || (_export.CanFlush && !now.CanFlush);
        bool isNarrower = now.MinimumBlock > Block || (now.MaximumPayload != 0 && now.MaximumPayload < Payload);
        return hasLess ? "its export can do less now than before"
            : isNarrower ? $"its export has other blocks now than before: {now.MinimumBlock} to {now.MaximumPayload} bytes"
            : null;
    }

    internal static BlockException Refused(string name, BlockErrorKind kind, string why) =>
        new(kind, $"disk {name}: {why}") { Path = name };
}
