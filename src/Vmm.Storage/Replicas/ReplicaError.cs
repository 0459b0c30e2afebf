namespace Vmm.Storage.Replicas;

/// <summary>Errors of files of a replica.</summary>
internal static class ReplicaError
{
    /// <summary>A file, or what a peer sent, is not what it should be.</summary>
    internal static BlockException Damaged(string path, string what) =>
        new(BlockErrorKind.Damaged, $"replica file {path} is refused: {what}") { Path = path };

    /// <summary>The host fails.</summary>
    internal static BlockException Failed(string path, string what, Exception e)
    {
        bool isFull = e is IOException && (e.HResult & 0xffff) is 28 or 122; // ENOSPC, EDQUOT (errno(3))
        return new BlockException(
            BlockErrorKind.Io,
            $"replica file {path} {what}: {(isFull ? "no space left on its file system; make room there" : e.Message)}",
            e)
        {
            Path = path,
            Status = isFull ? DiskStatus.NoSpace : DiskStatus.IoError,
        };
    }
}
