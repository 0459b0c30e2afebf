using System.Runtime.InteropServices;
using Vmm.Memory;

namespace Vmm.Machine.Tests.Boot;

/// <summary>Zeroed RAM for loader tests: one or more vnodes from address 0 up, untouched pages cost nothing.</summary>
internal sealed unsafe class TestRam : IDisposable
{
    private readonly List<nint> _blocks = [];

    public TestRam(params (ulong Start, ulong Length)[] extents)
    {
        List<GuestRegion> regions = [];
        foreach ((ulong start, ulong length) in extents)
        {
            nint block = (nint)NativeMemory.AllocZeroed((nuint)length);
            _blocks.Add(block);
            regions.Add(new GuestRegion(new(start), new ByteSize(length), block, regions.Count));
        }

        Memory = new GuestMemory(regions);
    }

    public GuestMemory Memory { get; }

    public byte[] Bytes(ulong at, int length)
    {
        byte[] bytes = new byte[length];
        Assert.True(Memory.TryRead(new GuestAddress(at), bytes));
        return bytes;
    }

    public T Value<T>(ulong at) where T : unmanaged
    {
        Assert.True(Memory.TryRead(new GuestAddress(at), out T value));
        return value;
    }

    public void Dispose()
    {
        foreach (nint block in _blocks)
        {
            NativeMemory.Free((void*)block);
        }
    }
}
