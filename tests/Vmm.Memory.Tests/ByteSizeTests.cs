using FsCheck;
using FsCheck.Fluent;

namespace Vmm.Memory.Tests;

public sealed class ByteSizeTests
{
    [Theory]
    [InlineData(0, "0B")]
    [InlineData(1, "1B")]
    [InlineData(4096, "4KiB")]
    [InlineData(4097, "4097B")]
    [InlineData(512UL << 20, "512MiB")]
    [InlineData(3UL << 40, "3TiB")]
    [InlineData(ulong.MaxValue, "18446744073709551615B")]
    public void Sizes_read_in_the_largest_unit_that_divides_them(ulong bytes, string text) =>
        Assert.Equal(text, new ByteSize(bytes).ToString());

    [Fact]
    public void Pages_and_bytes_agree() =>
        Prop.ForAll<uint>(
            pages => new PageCount(pages).Size.Pages == new PageCount(pages) && new PageCount(pages).Size.Bytes == pages * 4096UL)
            .QuickCheckThrowOnFailure();

    [Fact]
    public void Sums_do_not_wrap()
    {
        Assert.Throws<OverflowException>(() => new ByteSize(ulong.MaxValue) + new ByteSize(1));
        Assert.Throws<OverflowException>(() => new PageCount(ulong.MaxValue).Size);
    }

    [Fact]
    public void Units_are_powers_of_two()
    {
        Assert.Equal((1024UL, 1UL << 20, 1UL << 30), (ByteSize.KiB(1).Bytes, ByteSize.MiB(1).Bytes, ByteSize.GiB(1).Bytes));
        Assert.True(ByteSize.GiB(1).IsMultipleOf(ByteSize.MiB(2)));
        Assert.False(new ByteSize(4097).IsMultipleOf(ByteSize.KiB(4)));
    }
}
