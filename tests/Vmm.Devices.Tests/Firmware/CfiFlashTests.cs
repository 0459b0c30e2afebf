using Vmm.Devices.Firmware;
using Vmm.State;

namespace Vmm.Devices.Tests.Firmware;

/// <summary>The flash as edk2's driver of QEMU's flash uses it, and as a hostile guest might.</summary>
public sealed class CfiFlashTests
{
    private const int Blocks = 3;
    private readonly Memory _memory = new();
    private readonly CfiFlash _flash;

    public CfiFlashTests() => _flash = new CfiFlash(_memory);

    [Fact]
    public void A_driver_finds_a_flash_that_it_can_write()
    {
        // QemuFlashDetected: clear the status, read it where the array has something else, write that byte again.
        byte original = Read(0x10);
        Write(0x10, 0x50);
        Assert.Equal(original, Read(0x10));
        Write(0x10, 0x70);
        Assert.Equal(0, Read(0x10));
        Write(0x10, 0x10);
        Write(0x10, original);
        Write(0x10, 0x70);
        Assert.Equal(0, Read(0x10) & 0x10);
        Write(0x10, 0xFF);
        Assert.Equal(original, Read(0x10));
        Assert.True(_memory.IsShown);
    }

    [Fact]
    public void A_block_is_erased_then_programmed_byte_by_byte_and_others_stay()
    {
        Write(4096 + 5, 0x20);
        Assert.False(_memory.IsShown);
        Write(4096 + 5, 0xD0);
        Assert.Equal(0x80, Read(4096));
        for (ulong i = 0; i < 3; i++)
        {
            Write(4096 + i, 0x10);
            Write(4096 + i, (byte)(i + 1));
        }

        Write(4096 + 2, 0xFF);
        Assert.True(_memory.IsShown);
        Assert.Equal([1, 2, 3, 0xFF], _memory.Bytes.Slice(4096, 4).ToArray());
        Assert.False(_memory.Bytes.Slice(4100, 4092).ContainsAnyExcept((byte)0xFF));
        Assert.False(_memory.Bytes[..4096].ContainsAnyExcept((byte)0x33));
        Assert.False(_memory.Bytes[8192..].ContainsAnyExcept((byte)0x33));
    }

    [Fact]
    public void An_erasure_that_is_not_confirmed_erases_nothing()
    {
        Write(0, 0x20);
        Write(0, 0x55);
        Assert.Equal(0xA0, Read(0) & 0xA0);
        Write(0, 0x20);
        Write(0, 0xFF);
        Assert.Equal(0x33, Read(0));
    }

    [Fact]
    public void It_says_whose_it_is()
    {
        Write(0, 0x90);
        Assert.Equal((0x89, 0x18), (Read(0), Read(1)));
    }

    [Fact]
    public void Saved_state_has_the_bytes_that_are_not_erased_and_the_command_amid_which_it_was()
    {
        Write(4096, 0x20);
        Write(4096, 0xD0);
        Write(7, 0x10);
        CfiFlashStateV1 state = _flash.Capture();
        Assert.Equal([0, 2], state.Blocks.Select(block => block.Number));

        Memory memory = new();
        CfiFlash other = new(memory);
        other.Restore(state);
        Assert.False(memory.IsShown);
        other.Write(7, [0x42]);
        other.Write(7, [0xFF]);
        Assert.Equal(0x42, memory.Bytes[7]);
        Assert.Equal(0xFF, memory.Bytes[4096]);
    }

    [Theory]
    [InlineData(-1, 4096)]
    [InlineData(Blocks, 4096)]
    [InlineData(0, 4095)]
    public void A_saved_block_that_does_not_fit_is_refused_and_nothing_changes(int number, int length)
    {
        CfiFlashStateV1 state = _flash.Capture() with { Blocks = [new FlashBlockV1 { Number = number, Bytes = new byte[length] }] };
        Assert.Throws<StateException>(() => _flash.Restore(state));
        Assert.False(_memory.Bytes.ContainsAnyExcept((byte)0x33));
        Assert.Throws<StateException>(() => _flash.Restore(_flash.Capture() with { Mode = 9 }));
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Whatever_a_guest_writes_it_is_shown_exactly_when_it_reads_as_its_array()
    {
        Random random = new(15);
        byte[] data = new byte[8];
        byte[] commands = [0x10, 0x20, 0x40, 0x50, 0x70, 0x90, 0xD0, 0xFF, 0x00];
        for (int i = 0; i < 50_000; i++)
        {
            ulong offset = (ulong)random.Next(Blocks * 4096);
            int width = 1 << random.Next(4);
            random.NextBytes(data);
            data[0] = random.Next(4) == 0 ? data[0] : commands[random.Next(commands.Length)];
            _flash.Write(offset, data.AsSpan(0, width));
            _flash.Read(offset, data.AsSpan(0, width));
            if (_memory.IsShown)
            {
                int inside = Math.Min(width, _memory.Bytes.Length - (int)offset);
                Assert.Equal(_memory.Bytes.Slice((int)offset, inside), data.AsSpan(0, inside));
            }
        }
    }

    private byte Read(ulong offset)
    {
        byte[] data = new byte[1];
        _flash.Read(offset, data);
        return data[0];
    }

    private void Write(ulong offset, byte value) => _flash.Write(offset, [value]);

    private sealed class Memory : IFlashMemory
    {
        private readonly byte[] _bytes = new byte[Blocks * 4096];

        public Memory() => _bytes.AsSpan().Fill(0x33);

        public Span<byte> Bytes => _bytes;

        public bool IsShown { get; private set; } = true;

        public void Show(bool array)
        {
            Assert.NotEqual(array, IsShown);
            IsShown = array;
        }
    }
}
