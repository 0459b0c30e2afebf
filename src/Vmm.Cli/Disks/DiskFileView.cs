using Vmm.Cli.Remote;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Disks;

/// <summary>What the verbs for image files print.</summary>
internal static class DiskFileView
{
    internal static int Info(DaemonSession session, string path, string format)
    {
        if (NbdUri.Is(path))
        {
            return NbdView.Info(session, path);
        }

        ImageView image = Read(path, format);
        if (session.IsJson)
        {
            return session.Json(image, DiskFileJson.Default.ImageView);
        }

        List<(string, string)> rows = [
            ("file", image.File), ("format", image.Format), ("size", $"{Size(image.VirtualSize)} ({image.VirtualSize} bytes)"),
            ("on the host", Size(image.AllocatedSize)), ("backing file", Backing(image))];
        if (image.Qcow2 is { } own)
        {
            rows.AddRange([
                ("version", own.Version == 2 ? "2" : "3"), ("cluster size", Size(own.ClusterSize)),
                ("refcount bits", Number(own.RefcountBits)), ("extended L2", own.ExtendedL2 ? "yes" : "no"),
                ("lazy refcounts", own.LazyRefcounts ? "yes" : "no"), ("compression", own.Compression), ("state", State(own)),
                ("snapshots", Joined(own.Snapshots.Select(s => $"{s.Id} {s.Name}"))),
                ("bitmaps", Joined(own.Bitmaps.Select(b => b.Inconsistent ? b.Name + " (inconsistent)" : b.Name)))]);
            rows.AddRange(own.Problems.Select(p => ("problem", p)));
        }

        return session.Properties([.. rows]);
    }

    internal static int Chain(DaemonSession session, string path, string format)
    {
        List<ImageView> images = [.. ImageChainInfo.Read(path, format).Select(image => Read(image.Path, image.Format))];
        if (session.IsJson)
        {
            return session.Json<IReadOnlyList<ImageView>>(images, DiskFileJson.Default.IReadOnlyListImageView);
        }

        Table table = new("DEPTH", "FORMAT", "SIZE", "ON THE HOST", "FILE");
        for (int depth = 0; depth < images.Count; depth++)
        {
            ImageView image = images[depth];
            table.Add(Number(depth), image.Format, Size(image.VirtualSize), Size(image.AllocatedSize), image.File);
        }

        return session.Table(table);
    }

    internal static int Map(DaemonSession session, string path, string format, ToolProgress progress)
    {
        string[] files = [.. ImageChainInfo.Read(path, format).Select(image => image.Path)];
        IEnumerable<ExtentView> extents = ImageMap.Read(path, format, progress).Select(e => new ExtentView(
            e.Start,
            e.Length,
            e.Depth,
            Word(e.Kind),
            e.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed ? e.HostOffset : null,
            e.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed ? files[e.Depth] : null));
        if (session.IsJson)
        {
            return session.Json<IReadOnlyList<ExtentView>>([.. extents], DiskFileJson.Default.IReadOnlyListExtentView);
        }

        Table table = new("START", "LENGTH", "KIND", "DEPTH", "OFFSET", "FILE");
        foreach (ExtentView e in extents)
        {
            string place = e.Offset is { } offset ? Number((long)offset) : "-";
            table.Add(Number((long)e.Start), Number((long)e.Length), e.Kind, Number(e.Depth), place, e.File ?? "-");
        }

        return session.Table(table);
    }

    internal static int Check(DaemonSession session, string path, string? repair, ToolProgress progress)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: repair is not null);
        RepairResult? mended = repair is null
            ? null : Qcow2Repair.Run(file, repair is "all" ? RepairMode.All : RepairMode.Leaks, progress);
        CheckReport report = mended?.After ?? Qcow2Check.Run(file, progress);
        if (session.IsJson)
        {
            _ = session.Json(
                new CheckView(
                    path, report.Corruptions, report.Leaks, mended?.CorruptionsMended ?? 0, mended?.LeaksMended ?? 0, report.EndOffset,
                    report.TotalClusters, report.AllocatedClusters, report.CompressedClusters,
                    [.. report.Findings.Select(f => new FindingView(f.Kind.ToString(), f.Offset, f.Text))]),
                DiskFileJson.Default.CheckView);
            return report.ExitCode;
        }

        foreach (CheckFinding finding in report.Findings)
        {
            session.Out.WriteLine(finding.Text);
        }

        if (report.Corruptions + report.Leaks > (ulong)report.Findings.Count)
        {
            session.Out.WriteLine("… and more");
        }

        if (mended is not null)
        {
            session.Out.WriteLine($"{path}: mended {mended.CorruptionsMended} corruptions and {mended.LeaksMended} leaks");
        }

        session.Out.WriteLine(report.IsClean
            ? $"{path}: clean; {report.AllocatedClusters} of {report.TotalClusters} clusters allocated, "
                + $"{report.CompressedClusters} compressed"
            : $"{path}: {report.Corruptions} corruptions, {report.Leaks} leaks");
        return report.ExitCode;
    }

    /// <summary>Says what was done; programs get the image as it is now.</summary>
    internal static int Done(DaemonSession session, string path, string format, string what)
    {
        if (session.IsJson)
        {
            return session.Json(Read(path, format), DiskFileJson.Default.ImageView);
        }

        session.Out.WriteLine($"{path} {what}");
        return ExitCodes.Done;
    }

    private static ImageView Read(string path, string format)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: false);
        ulong allocated = ImageFiles.AllocatedBytes(path);
        if (format is "raw")
        {
            return new ImageView(path, format, file.Length, file.Length, allocated);
        }

        Qcow2Info info = Qcow2Info.Read(file);
        Qcow2Header header = info.Header;
        return new ImageView(
            path, format, header.DiskSize, info.FileBytes, allocated, header.BackingFile, header.BackingFormat,
            new Qcow2View(
                header.Version,
                header.Geometry.ClusterSize,
                1 << header.Geometry.RefcountOrder,
                header.Geometry.ExtendedL2,
                (header.Compatible & Qcow2Compatible.LazyRefcounts) != 0,
                header.Compression == Qcow2Compression.Zstd ? "zstd" : "zlib",
                (header.Incompatible & Qcow2Incompatible.Dirty) != 0,
                (header.Incompatible & Qcow2Incompatible.Corrupt) != 0,
                [.. info.Snapshots.Select(s => new SnapshotView(s.Id, s.Name, s.Time, s.StateBytes))],
                [.. info.Bitmaps.Select(b => new BitmapView(b.Name, 1ul << (b.GranularityBits & 63), b.IsInconsistent))],
                info.Problems));
    }

    private static string Backing(ImageView image) =>
        image.BackingFile is null ? "-" : $"{image.BackingFile} ({image.BackingFormat ?? "of a format that it does not say"})";

    private static string State(Qcow2View image) =>
        image.Corrupt ? "marked corrupt" : image.Dirty ? "marked dirty: its last writer did not end" : "closed";

    private static string Joined(IEnumerable<string> words) => string.Join(", ", words) is { Length: > 0 } all ? all : "-";

    private static string Word(DiskExtentKind kind) => kind switch
    {
        DiskExtentKind.Data => "data",
        DiskExtentKind.Zero => "zero",
        DiskExtentKind.Compressed => "compressed",
        _ => "unallocated",
    };
}
