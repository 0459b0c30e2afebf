using Vmm.CommandLine;
using FsCheck;
using FsCheck.Fluent;

namespace Vmm.Run.Tests;

public sealed class EscapeFilterTests
{
    [Theory]
    [InlineData("abc", "abc", EscapeAction.None)]
    [InlineData("a\u0001\u0001b", "a\u0001b", EscapeAction.None)]
    [InlineData("a\u0001xb", "a", EscapeAction.Leave)]
    [InlineData("a\u0001hb", "a", EscapeAction.Help)]
    [InlineData("a\u0001qb", "ab", EscapeAction.None)]
    public void Escapes_are_taken_out(string typed, string forGuest, EscapeAction expected)
    {
        byte[] input = System.Text.Encoding.Latin1.GetBytes(typed);
        int kept = new EscapeFilter().Filter(input, out _, out EscapeAction action);
        Assert.Equal((forGuest, expected), (System.Text.Encoding.Latin1.GetString(input, 0, kept), action));
    }

    [Fact]
    public void Splitting_the_input_anywhere_changes_nothing() => Check.QuickThrowOnFailure(Prop.ForAll(
        Gen.Elements((byte)1, (byte)'a', (byte)'q', (byte)0).ArrayOf().ToArbitrary(),
        Gen.Choose(0, 20).ToArbitrary(),
        (typed, cut) =>
        {
            byte[] whole = [.. typed];
            int kept = new EscapeFilter().Filter(whole, out _, out _);
            cut = Math.Min(cut, typed.Length);
            byte[] first = typed[..cut];
            byte[] second = typed[cut..];
            EscapeFilter split = new();
            int a = split.Filter(first, out _, out _);
            int b = split.Filter(second, out _, out _);
            return whole[..kept].SequenceEqual(first[..a].Concat(second[..b]));
        }));
}
