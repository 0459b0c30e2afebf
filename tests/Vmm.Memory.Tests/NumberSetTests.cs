using FsCheck;
using FsCheck.Fluent;

namespace Vmm.Memory.Tests;

public class NumberSetTests
{
    private const int Limit = 1024;

    [Fact]
    public void What_was_formatted_is_parsed_back() =>
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<int[]>(), raw =>
        {
            int[] numbers = [.. raw.Select(n => (int)((uint)n % Limit)).Distinct().Order()];
            return NumberSet.TryParse(NumberSet.Format(numbers), Limit, out IReadOnlyList<int> parsed) && parsed.SequenceEqual(numbers);
        }));

    [Theory]
    [InlineData("", new int[0])]
    [InlineData("0-3,8", new[] { 0, 1, 2, 3, 8 })]
    [InlineData(" 8,0-1\n", new[] { 0, 1, 8 })]
    [InlineData("1-3,2-4", new[] { 1, 2, 3, 4 })]
    [InlineData("1023", new[] { 1023 })]
    public void Good_lists_are_understood(string text, int[] expected)
    {
        Assert.True(NumberSet.TryParse(text, Limit, out IReadOnlyList<int> numbers));
        Assert.Equal(expected, numbers);
    }

    [Theory]
    [InlineData("1024")]
    [InlineData("0-1024")]
    [InlineData("3-1")]
    [InlineData("-1")]
    [InlineData("1-")]
    [InlineData("1-2-3")]
    [InlineData("a")]
    [InlineData("1;2")]
    [InlineData("99999999999")]
    public void Bad_lists_are_refused(string text) => Assert.False(NumberSet.TryParse(text, Limit, out _));

    [Fact]
    public void Ranges_are_written_short() => Assert.Equal("0-3,5,7-8", NumberSet.Format([0, 1, 2, 3, 5, 7, 8]));

    [Fact]
    public void Random_text_gets_an_answer()
    {
        Random random = new(3);
        const string Alphabet = "0123456789-, \nx";
        for (int i = 0; i < 20000; i++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(12)).Select(_ => Alphabet[random.Next(Alphabet.Length)]));
            if (NumberSet.TryParse(text, Limit, out IReadOnlyList<int> numbers))
            {
                Assert.True(
                    NumberSet.TryParse(NumberSet.Format(numbers), Limit, out IReadOnlyList<int> again) && again.SequenceEqual(numbers),
                    text);
                Assert.All(numbers, n => Assert.InRange(n, 0, Limit - 1));
            }
        }
    }
}
