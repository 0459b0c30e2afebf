using System.Text.Json;
using Vmm.Spec;

namespace Vmm.Daemon.Inventory;

/// <summary>
/// A disk that is being copied. The spec says which of the two files is the disk: with <paramref name="Target"/> in it the copy succeeded.
/// With one file as both it is being streamed, which changes no file's name.
/// </summary>
/// <param name="Disk">Its name in the running VM.</param>
/// <param name="Source">The file that it was in, as the spec names it.</param>
/// <param name="Target">The file that the copy made, or the URI of the server that it goes to.</param>
/// <param name="Before">The disk as the spec had it, as JSON; null: it was a raw file, as <paramref name="Source"/> says.</param>
public sealed record DiskCopyRecord(string Disk, string Source, string Target, string? Before = null)
{
    /// <summary>What the disk was in.</summary>
    internal SourceSpec SourceBefore
    {
        get
        {
            if (Before is not null)
            {
                using JsonDocument json = JsonDocument.Parse(Before);
                DiskSpec? disk = VmSpecJson.TryReadDisk(json.RootElement, out _);
                if (string.Equals(disk?.Path, Source, StringComparison.Ordinal))
                {
                    return disk!.Source;
                }
            }

            return new SourceSpec { Path = Source };
        }
    }

    /// <summary>It is no copy.</summary>
    public bool IsStream => string.Equals(Source, Target, StringComparison.Ordinal);
}
