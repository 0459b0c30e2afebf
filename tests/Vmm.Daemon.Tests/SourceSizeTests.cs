using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Microsoft.CodeAnalysis.Text;
using Vmm.Testing;
using Xunit;

namespace Vmm.Daemon.Tests;

/// <summary>
/// The sizes the product keeps to: what a reader takes in at a time. Lines count from the signature to the closing brace, without
/// attributes and documentation; a type counts with all its partial parts and the types inside it.
/// </summary>
public sealed class SourceSizeTests
{
    private const int MostLinesOfMethod = 60;
    private const int MostLinesOfType = 400;

    [Fact]
    public void No_method_and_no_type_of_the_product_is_too_long()
    {
        List<SyntaxTree> trees = [.. SourceFiles(Path.Combine(Tree.Root, "src")).Select(Parse)];
        Assert.True(trees.Count > 300, $"only {trees.Count} source files were found");

        List<string> tooLong = [.. LongMethods(trees, MostLinesOfMethod), .. LongTypes(trees, MostLinesOfType)];
        Assert.True(tooLong.Count == 0, $"too long:\n{string.Join('\n', tooLong)}");
    }

    [Theory]
    [InlineData("class C\n{\n    void F()\n    {\n        G();\n    }\n}", "a.cs:3: C.F has 4 lines")]
    [InlineData("class C\n{\n    /// <summary>\n    /// Text.\n    /// </summary>\n    [A]\n    void F()\n    {\n    }\n}", null)]
    [InlineData("class C\n{\n    C(\n        int a)\n    {\n    }\n}", "a.cs:3: C.C has 4 lines")]
    [InlineData("class C\n{\n    int P\n    {\n        get\n        {\n            return\n1;}}}", "a.cs:5: C.P.get has 4 lines")]
    [InlineData("class C\n{\n    int P =>\n        1 +\n        2 +\n        3;\n}", "a.cs:3: C.P has 4 lines")]
    [InlineData("class C\n{\n    int this[int i] =>\n        1 +\n        2 +\n        3;\n}", "a.cs:3: C.this has 4 lines")]
    [InlineData("class C\n{\n    public static C operator +(C a, C b)\n    {\n\n    }\n}", "a.cs:3: C.operator + has 4 lines")]
    [InlineData("class C\n{\n    Action a = () =>\n    {\n        G();\n    };\n}", "a.cs:3: C.lambda has 4 lines")]
    [InlineData("class C\n{\n    int[] table =\n    [\n        1,\n        2,\n    ];\n}", null)]
    [InlineData("G();\nG();\nG();\nG();", "a.cs:1: statements of the file has 4 lines")]
    public void Bodies_of_every_kind_are_measured(string source, string? expected) =>
        Assert.Equal(expected is null ? [] : [expected], LongMethods([Parse("a.cs", source)], most: 3));

    [Fact]
    public void A_local_function_is_measured_with_its_method_and_by_itself()
    {
        SyntaxTree tree =
            Parse("a.cs", "class C\n{\n    void F()\n    {\n        void G()\n        {\n            H();\n        }\n    }\n}");
        Assert.Equal(["a.cs:3: C.F has 7 lines", "a.cs:5: C.F.G has 4 lines"], LongMethods([tree], most: 3));
    }

    [Fact]
    public void A_type_is_measured_with_all_its_parts_and_its_nested_types()
    {
        SyntaxTree[] trees =
        [
            Parse("a.cs", "namespace N;\n\n/// <summary>C.</summary>\n[A]\npartial class C\n{\n    int a;\n}"),
            Parse("b.cs", "namespace N;\n\npartial class C\n{\n    enum E\n    {\n        A,\n        B\n    }\n}"),
            Parse("c.cs", "namespace M;\n\nclass C\n{\n}"),
        ];
        Assert.Equal(["a.cs:5, b.cs:3: N.C has 12 lines", "b.cs:5: N.C.E has 5 lines"], LongTypes(trees, most: 4));
    }

    private static IEnumerable<string> SourceFiles(string folder) =>
        Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories)
            .Where(file => !Path.GetRelativePath(folder, file).Split('/').Any(part => part is "obj" or "bin"))
            .Order(StringComparer.Ordinal);

    private static SyntaxTree Parse(string file) => Parse(Path.GetRelativePath(Tree.Root, file), File.ReadAllText(file));

    private static SyntaxTree Parse(string name, string source) =>
        CSharpSyntaxTree.ParseText(source, new CSharpParseOptions(LanguageVersion.Preview), name);

    private static IEnumerable<string> LongMethods(IEnumerable<SyntaxTree> trees, int most) =>
        from tree in trees
        from body in Bodies(tree.GetRoot())
        where body.Lines > most
        select $"{body.Place}: {body.Name} has {body.Lines} lines";

    private static IEnumerable<string> LongTypes(IEnumerable<SyntaxTree> trees, int most) =>
        from tree in trees
        from part in tree.GetRoot().DescendantNodes().OfType<BaseTypeDeclarationSyntax>().Select(Extent.Of)
        group part by part.Name into parts
        let lines = parts.Sum(part => part.Lines)
        where lines > most
        select $"{string.Join(", ", parts.Select(part => part.Place))}: {parts.Key} has {lines} lines";

    private static IEnumerable<Extent> Bodies(SyntaxNode root)
    {
        List<GlobalStatementSyntax> statements = [.. root.ChildNodes().OfType<GlobalStatementSyntax>()];
        if (statements.Count > 0)
        {
            yield return Extent.Between(statements[0], statements[^1]);
        }

        foreach (SyntaxNode node in root.DescendantNodes().Where(HasBody))
        {
            yield return Extent.Of(node);
        }
    }

    private static bool HasBody(SyntaxNode node) => node switch
    {
        PropertyDeclarationSyntax property => property.ExpressionBody is not null,
        IndexerDeclarationSyntax indexer => indexer.ExpressionBody is not null,
        BaseMethodDeclarationSyntax or LocalFunctionStatementSyntax or AccessorDeclarationSyntax => true,
        AnonymousFunctionExpressionSyntax => true,
        _ => false
    };

    /// <summary>Where a declaration stands, its name with those of what it stands in, and how many lines it has.</summary>
    private sealed record Extent(string Place, string Name, int Lines)
    {
        public static Extent Of(SyntaxNode node) => new(At(node, FirstLine(node)), FullName(node), LastLine(node) - FirstLine(node) + 1);

        public static Extent Between(SyntaxNode first, SyntaxNode last) =>
            new(At(first, FirstLine(first)), "statements of the file", LastLine(last) - FirstLine(first) + 1);

        private static string At(SyntaxNode node, int line) => $"{node.SyntaxTree.FilePath}:{line + 1}";

        private static int FirstLine(SyntaxNode node)
        {
            SyntaxNodeOrToken start = node.ChildNodesAndTokens().First(child => !child.IsKind(SyntaxKind.AttributeList));
            return LineAt(node, start.Span.Start);
        }

        private static int LastLine(SyntaxNode node) => LineAt(node, node.Span.End);

        private static int LineAt(SyntaxNode node, int position) =>
            node.SyntaxTree.GetLineSpan(new TextSpan(position, 0)).StartLinePosition.Line;

        private static string FullName(SyntaxNode node) =>
            string.Join('.', node.AncestorsAndSelf().Select(OwnName).OfType<string>().Reverse());

        private static string? OwnName(SyntaxNode node) => node switch
        {
            BaseNamespaceDeclarationSyntax space => space.Name.ToString(),
            TypeDeclarationSyntax type => $"{type.Identifier}{type.TypeParameterList}",
            BaseTypeDeclarationSyntax type => type.Identifier.Text,
            MethodDeclarationSyntax method => method.Identifier.Text,
            ConstructorDeclarationSyntax constructor => constructor.Identifier.Text,
            DestructorDeclarationSyntax destructor => $"~{destructor.Identifier}",
            OperatorDeclarationSyntax op => $"operator {op.OperatorToken}",
            ConversionOperatorDeclarationSyntax op => $"operator {op.Type}",
            LocalFunctionStatementSyntax local => local.Identifier.Text,
            PropertyDeclarationSyntax property => property.Identifier.Text,
            IndexerDeclarationSyntax => "this",
            EventDeclarationSyntax @event => @event.Identifier.Text,
            AccessorDeclarationSyntax accessor => accessor.Keyword.Text,
            AnonymousFunctionExpressionSyntax => "lambda",
            _ => null
        };
    }
}
