using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Saved pages with a word each that tells where they are; every eighth chunk is a hole, every seventh page zeros.</summary>
internal sealed class SavedPattern(ulong bytes) : ISavedPages
{
    private int _reads;

    /// <summary>A chunk that is damaged.</summary>
    internal ulong? Broken { get; init; }

    /// <summary>How long each read takes.</summary>
    internal TimeSpan Delay { get; init; }

    internal ulong Bytes => bytes;

    internal int Reads => Volatile.Read(ref _reads);

    internal bool IsDisposed { get; private set; }

    /// <summary>The first word of a page.</summary>
    internal static ulong Of(ulong at) =>
        at / ISavedPages.ChunkBytes % 8 == 5 || at / 4096 % 7 == 3 ? 0 : ((at & ~4095UL) * 0x9E3779B97F4A7C15) | 1;

    public bool HasContent(ulong chunk) => chunk % 8 != 5;

    public void Read(ulong chunk, Span<byte> content)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        Interlocked.Increment(ref _reads);
        Thread.Sleep(Delay);
        if (chunk == Broken)
        {
            throw new SavedPagesException($"chunk {chunk} is damaged");
        }

        ulong at = chunk * ISavedPages.ChunkBytes;
        content.Clear();
        for (int page = 0; page < content.Length; page += 4096)
        {
            BitConverter.TryWriteBytes(content[page..], Of(at + (ulong)page));
        }

        if (at + (ulong)content.Length > bytes)
        {
            throw new SavedPagesException("more is asked for than there is");
        }
    }

    public void Dispose() => IsDisposed = true;
}
