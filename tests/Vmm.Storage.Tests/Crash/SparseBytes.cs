namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// Bytes of a file of any length: pages that were written; the rest is zeros. A copy shares pages until one of the two writes to them.
/// </summary>
internal sealed class SparseBytes
{
    private const int PageBytes = 4096;

    private readonly Dictionary<ulong, Page> _pages = [];

    /// <summary>Where the file ends; what is written behind it does not move it.</summary>
    public ulong Length { get; set; }

    /// <summary>Pages that take memory.</summary>
    public int Pages => _pages.Count;

    public void Read(Span<byte> destination, ulong offset)
    {
        while (!destination.IsEmpty)
        {
            int at = (int)(offset % PageBytes), take = Math.Min(destination.Length, PageBytes - at);
            if (_pages.TryGetValue(offset / PageBytes, out Page page))
            {
                page.Bytes.AsSpan(at, take).CopyTo(destination);
            }
            else
            {
                destination[..take].Clear();
            }

            destination = destination[take..];
            offset += (uint)take;
        }
    }

    public void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        while (!bytes.IsEmpty)
        {
            int at = (int)(offset % PageBytes), take = Math.Min(bytes.Length, PageBytes - at);
            bytes[..take].CopyTo(Own(offset / PageBytes).AsSpan(at));
            bytes = bytes[take..];
            offset += (uint)take;
        }
    }

    /// <summary>The range is zeros; whole pages of it take no memory any more.</summary>
    public void Clear(ulong offset, ulong length)
    {
        ulong end = offset + length, first = (offset + PageBytes - 1) / PageBytes, last = end / PageBytes;
        if (first > last)
        {
            ClearBytes(offset, end);
            return;
        }

        ClearBytes(offset, first * PageBytes);
        ClearBytes(last * PageBytes, end);
        if (last - first > (ulong)_pages.Count)
        {
            foreach (ulong page in _pages.Keys.Where(p => p >= first && p < last).ToArray())
            {
                _pages.Remove(page);
            }

            return;
        }

        for (ulong page = first; page < last; page++)
        {
            _pages.Remove(page);
        }
    }

    public SparseBytes Copy()
    {
        SparseBytes copy = new() { Length = Length };
        foreach (ulong number in _pages.Keys.ToArray())
        {
            Page shared = _pages[number] with { IsShared = true };
            _pages[number] = shared;
            copy._pages[number] = shared;
        }

        return copy;
    }

    /// <summary>Writes a file with holes where there is no page.</summary>
    public void SaveTo(string path)
    {
        using FileStream file = new(path, FileMode.Create, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
        foreach ((ulong number, Page page) in _pages.OrderBy(p => p.Key))
        {
            ulong at = number * PageBytes;
            if (at < Length)
            {
                file.Position = (long)at;
                file.Write(page.Bytes.AsSpan(0, (int)Math.Min(PageBytes, Length - at)));
            }
        }

        file.SetLength((long)Length);
    }

    public static SparseBytes Load(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
        SparseBytes bytes = new() { Length = (ulong)file.Length };
        byte[] chunk = new byte[256 * PageBytes];
        for (ulong at = 0; ;)
        {
            int read = file.ReadAtLeast(chunk, chunk.Length, throwOnEndOfStream: false);
            for (int page = 0; page < read; page += PageBytes)
            {
                ReadOnlySpan<byte> part = chunk.AsSpan(page, Math.Min(PageBytes, read - page));
                if (part.ContainsAnyExcept((byte)0))
                {
                    bytes.Write(part, at + (uint)page);
                }
            }

            at += (uint)read;
            if (read < chunk.Length)
            {
                return bytes;
            }
        }
    }

    private void ClearBytes(ulong from, ulong to)
    {
        if (from < to && _pages.ContainsKey(from / PageBytes))
        {
            Own(from / PageBytes).AsSpan((int)(from % PageBytes), (int)(to - from)).Clear();
        }
    }

    private byte[] Own(ulong number)
    {
        if (_pages.TryGetValue(number, out Page page) && !page.IsShared)
        {
            return page.Bytes;
        }

        byte[] bytes = page.Bytes is { } shared ? (byte[])shared.Clone() : new byte[PageBytes];
        _pages[number] = new Page(bytes, IsShared: false);
        return bytes;
    }

    private readonly record struct Page(byte[] Bytes, bool IsShared);
}
