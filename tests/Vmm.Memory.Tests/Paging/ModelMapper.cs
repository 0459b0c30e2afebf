using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>
/// Memory as a model: which pages are in memory, which are mapped, and one number each. It fails on what must never be done.
/// </summary>
internal sealed class ModelMapper(int pages, Action turn) : IPageMapper
{
    private readonly bool[] _inMemory = new bool[pages], _mapped = new bool[pages], _inUse = new bool[pages],
        _moving = new bool[pages], _protected = new bool[pages];
    private readonly ulong[] _content = new ulong[pages];

    /// <summary>Pages in memory.</summary>
    internal int InMemory => _inMemory.Count(each => each);

    /// <summary>A transfer uses the page from now on, or no more.</summary>
    internal void Use(ulong page, bool inUse)
    {
        Require(_inMemory[page] && (_mapped[page] || !inUse), page, "a transfer waits for a page");
        _inUse[page] = inUse;
    }

    /// <summary>The guest touches the page: false when it has to fault.</summary>
    internal bool TryTouch(ulong page, ulong? write, out ulong content)
    {
        if (write is { } value && _mapped[page])
        {
            _content[page] = value;
            _protected[page] = false;
        }

        content = _content[page];
        return _mapped[page];
    }

    public void Unmap(ulong page, int count) => Each(page, count, at =>
    {
        Require(!_inUse[at], at, "a page that a transfer uses is unmapped");
        _mapped[at] = false;
    });

    public void Read(ulong page, int count, Span<byte> content)
    {
        for (int i = 0; i < count; i++)
        {
            turn();
            ulong at = page + (ulong)i;
            Require(_inMemory[at] && !_mapped[at], at, "a page is written out that the guest can change");
            content.Slice(i * 4096, 4096).Clear();
            BitConverter.TryWriteBytes(content[(i * 4096)..], _content[at]);
        }
    }

    public void Peek(ulong page, int count, Span<byte> content)
    {
        for (int i = 0; i < count; i++)
        {
            turn();
            ulong at = page + (ulong)i;
            Require(_inMemory[at], at, "a page is read that is not in memory");
            content.Slice(i * 4096, 4096).Clear();
            BitConverter.TryWriteBytes(content[(i * 4096)..], _content[at]);
        }
    }

    public int MoveTo(ReadOnlySpan<ulong> moved, int hostNode)
    {
        foreach (ulong page in moved)
        {
            Require(_inMemory[page] && _mapped[page], page, "a page is moved to another node that is not mapped");
            Require(!_inUse[page], page, "a page is moved to another node that a transfer uses");
            _moving[page] = true;
        }

        foreach (ulong page in moved)
        {
            turn();
            Require(_inMemory[page] && _mapped[page] && !_inUse[page], page, "two work on one page");
            _moving[page] = false;
        }

        return 0;
    }

    public void Drop(ulong page, int count) => Each(page, count, at =>
    {
        Require(!_inUse[at], at, "a page that a transfer uses is dropped");
        Require(_inMemory[at], at, "a page is dropped that is not in memory");
        _inMemory[at] = _mapped[at] = _protected[at] = false;
        _content[at] = 0;
    });

    public bool Protects => true;

    public uint Written(ulong page, int count)
    {
        turn();
        uint written = 0;
        for (int i = 0; i < count; i++)
        {
            written |= _protected[page + (ulong)i] ? 0 : 1u << i;
        }

        return written;
    }

    public void Fill(ulong page, ReadOnlySpan<byte> content, bool kept)
    {
        for (int i = 0; i < content.Length / 4096; i++)
        {
            turn();
            ulong at = page + (ulong)i;
            Require(!_inMemory[at], at, "a page is filled that is in memory");
            _inMemory[at] = _mapped[at] = true;
            _protected[at] = kept;
            _content[at] = BitConverter.ToUInt64(content[(i * 4096)..]);
        }
    }

    public void Zero(ulong page)
    {
        turn();
        Require(!_inMemory[page], page, "a page is zeroed that is in memory");
        _inMemory[page] = _mapped[page] = true;
        _content[page] = 0;
    }

    public void Map(ulong page, bool kept)
    {
        turn();
        Require(_inMemory[page], page, "a page is mapped that is not in memory");
        Require(!kept || _protected[page], page, "a page that was written counts as unchanged");
        _mapped[page] = true;
        _protected[page] = kept;
    }

    public void Wake(ulong page, int count) => turn();

    private static void Require(bool holds, ulong page, string otherwise)
    {
        if (!holds)
        {
            throw new InvalidOperationException($"page {page}: {otherwise}");
        }
    }

    private void Each(ulong page, int count, Action<ulong> each)
    {
        for (int i = 0; i < count; i++)
        {
            turn();
            Require(!_moving[page + (ulong)i], page + (ulong)i, "two work on one page");
            each(page + (ulong)i);
        }
    }
}
